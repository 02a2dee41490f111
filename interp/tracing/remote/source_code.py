"""Serialises what a job sends so that all of `interp` in it travels as source code.

nnsight sends functions as source, but classes as cloudpickle does, with methods that dataclasses generate as bytecode,
which another version of Python cannot run. Here a class of `interp` is the source of its `class` statement, executed
again on the server. A server needs torch, numpy, transformers and nnsight; it does not need `interp`.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import io
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import _lru_cache_wrapper, cache, lru_cache
from typing import Any

from cloudpickle import list_registry_pickle_by_value, register_pickle_by_value, unregister_pickle_by_value
from nnsight.intervention.serialization import DEFAULT_PROTOCOL, CustomCloudPickler, reduce_block

__all__ = ["SourcePickler", "serialised"]

_PACKAGE = __name__.partition(".")[0]


def serialised(tracer: Any, *, compress: bool) -> bytes:
    """An nnsight tracer and its block as the body of a request, as `nnsight.schema.request.RequestModel` reads it.

    Args:
        tracer: the tracer, whose block was captured.
        compress: whether the body is compressed (zstandard).
    """
    frame = tracer.info.frame
    block = reduce_block(tracer.node, frame.f_globals, dict(frame.f_locals))
    buffer = io.BytesIO()
    with _sent_by_value():
        SourcePickler(buffer, protocol=DEFAULT_PROTOCOL).dump((tracer, block))
    if not compress:
        return buffer.getvalue()
    import zstandard

    return zstandard.ZstdCompressor(level=6).compress(buffer.getvalue())


@contextmanager
def _sent_by_value() -> Iterator[None]:
    """Functions of `interp` are sent, not named, for the block; other users of cloudpickle see no difference."""
    if _PACKAGE in list_registry_pickle_by_value():
        yield
        return
    register_pickle_by_value(sys.modules[_PACKAGE])
    try:
        yield
    finally:
        unregister_pickle_by_value(sys.modules[_PACKAGE])


class SourcePickler(CustomCloudPickler):
    """nnsight's pickler, with the classes of `interp` as source code."""

    def reducer_override(self, obj: Any) -> Any:
        """A class of `interp` as its source and the names it uses, a function that caches as what it caches.

        Anything else goes as nnsight sends it.
        """
        if isinstance(obj, type) and obj.__module__.partition(".")[0] == _PACKAGE:
            source, line, filename, at_once, later = _parts(obj)
            space = vars(inspect.getmodule(obj))
            made = (source, obj.__name__, obj.__module__, f"[{obj.__name__}:{line}] {filename}", line)
            return make_class, (*made, _found(at_once, space)), _found(later, space), None, None, fill_class
        if isinstance(obj, _lru_cache_wrapper) and obj.__module__.partition(".")[0] == _PACKAGE:
            return make_cached, (inspect.unwrap(obj), obj.cache_parameters()["maxsize"])
        return super().reducer_override(obj)

    def _dynamic_function_reduce(self, func: Any) -> Any:
        """The function inside a wrapper such as a type checker's: its globals are those its source refers to."""
        return super()._dynamic_function_reduce(inspect.unwrap(func))


def make_cached(function: Any, size: int | None) -> Any:
    """A function that remembers its last `size` results; runs on the server, and starts with none."""
    return lru_cache(maxsize=size)(function)


def make_class(
    source: str, name: str, module: str, filename: str, line: int, names: Mapping[str, Any]
) -> type:
    """Executes a class statement; runs on the server. Names that only its methods use come by `fill_class`."""
    space: dict[str, Any] = {"__name__": "builtins", **names}  # dataclasses look the class's module up
    flags = __future__.annotations.compiler_flag
    exec(compile("\n" * (line - 1) + source, filename, "exec", flags=flags, dont_inherit=True), space)
    made = space[name]
    made.__module__, made.names_of_methods = module, space
    return made


def fill_class(made: Any, names: Mapping[str, Any]) -> None:
    """Gives the methods of a class the names they use; runs on the server."""
    made.names_of_methods.update(names)


@cache
def _parts(kind: type) -> tuple[str, int, str, frozenset[str], frozenset[str]]:
    """A class's source, first line and file, the names its statement uses at once, and those its methods use later."""
    lines, line = inspect.getsourcelines(kind)
    source = textwrap.dedent("".join(lines))
    statement = ast.parse(source).body[0]
    assert isinstance(statement, ast.ClassDef)
    at_once, later = set(), set()
    for node in (*statement.decorator_list, *statement.bases, *statement.keywords):
        at_once |= _read(node)
    for node in statement.body:
        if isinstance(node, ast.FunctionDef):
            defaults = [*node.args.defaults, *(one for one in node.args.kw_defaults if one is not None)]
            at_once |= set().union(*map(_read, (*node.decorator_list, *defaults)))
            later |= _free(node)
        elif not isinstance(node, ast.AnnAssign):
            at_once |= _read(node)
        elif node.value is not None:
            at_once |= _read(node.value)
    return source, line, inspect.getfile(kind), frozenset(at_once), frozenset(later)


def _read(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}


def _free(function: ast.FunctionDef) -> set[str]:
    """The names a function reads and does not bind itself; annotations are not evaluated."""
    read: set[str] = set().union(*map(_read, _without_annotations(function)))
    walked = list(ast.walk(function))
    bound = {one.id for one in walked if isinstance(one, ast.Name) and not isinstance(one.ctx, ast.Load)}
    return read - bound - {one.arg for one in walked if isinstance(one, ast.arg)}


def _without_annotations(function: ast.FunctionDef) -> Iterator[ast.AST]:
    for statement in function.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.AnnAssign):
                node.annotation = ast.Constant(None)
        yield statement


def _found(names: Iterable[str], space: Mapping[str, Any]) -> dict[str, Any]:
    return {name: space[name] for name in sorted(names) if name in space}
