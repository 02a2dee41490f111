"""The connection to an NDIF server: its address and key, its versions and models, and the jobs sent and fetched.

nnsight implements the protocol. Here its errors become ours, and results are read as tensors and plain values only,
never as a pickle that could run code.

Everything of `interp` in a job is sent as source code. nnsight sends functions as source, but classes as cloudpickle
does, with the methods that dataclasses generate as bytecode, which another version of Python cannot run. Here a class
of `interp` is sent as the source of its `class` statement, which the server executes again. A server needs torch,
numpy, transformers and nnsight; it does not need `interp`.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import io
import json
import pickle
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import _lru_cache_wrapper, cache, cached_property, lru_cache
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import httpx
import torch
import websocket
from cloudpickle import list_registry_pickle_by_value, register_pickle_by_value, unregister_pickle_by_value
from nnsight.intervention.backends.remote import RemoteBackend, RemoteError
from nnsight.intervention.serialization import DEFAULT_PROTOCOL, CustomCloudPickler, reduce_block
from nnsight.ndif import pull_env
from nnsight.schema.config import CONFIG
from nnsight.schema.response import ResponseModel, Status

from interp import errors
from interp.errors import InterpError, ServerError

__all__ = ["Connection", "JobBackend", "LostConnectionError", "SourcePickler", "serialised", "wait_for"]


_NEEDED = ("nnsight", "transformers", "torch")
"""The packages whose versions on the server affect numbers."""
_LONGEST = 2000
"""The most characters of a server's message that an error repeats."""
_KEPT = "Finished work is stored: run the same command again to continue."
_LOST = (websocket.WebSocketException, httpx.HTTPError, OSError)
"""The errors of a broken connection; a job's own errors are none of these."""


@dataclass(frozen=True)
class Connection:
    """An NDIF server, with nnsight's own settings by default.

    Args:
        host: The address; `configured` takes nnsight's `CONFIG.API.HOST`, which `NDIF_HOST` sets.
        key: The API key; `configured` takes nnsight's `CONFIG.API.APIKEY`, which `NDIF_API_KEY` or `nnsight login`
            sets.
        retries: How often a job is sent again after the connection broke.
        wait: The seconds before a job is sent again, and between two requests about a submitted job.
    """

    host: str
    key: str | None = None
    retries: int = 2
    wait: float = 1.0

    @classmethod
    def configured(cls) -> Connection:
        """The connection of nnsight's current settings."""
        return cls(CONFIG.API.HOST.rstrip("/"), CONFIG.API.APIKEY)

    def __repr__(self) -> str:
        return f"Connection({self.host!r}, key={'…' if self.key else None})"

    @cached_property
    def versions(self) -> dict[str, str]:
        """The server's versions of Python and of the packages that affect numbers."""
        found = self._get("/env")
        packages = found.get("packages", {})
        own = {name: str(packages[name]) for name in _NEEDED if name in packages}
        return {"python": str(found.get("python_version", "")).partition(" ")[0], **own}

    def check_versions(self) -> None:
        """Refuses a server whose nnsight or transformers cannot run jobs of this machine; warns of smaller differences.

        Raises:
            ServerError: Such a server, or one that does not answer.
        """
        for name, parts, needed in (
            ("nnsight", 2, True),
            ("transformers", 1, True),
            ("transformers", 2, False),
        ):
            theirs, ours = self.versions.get(name), version(name)
            if theirs is None or theirs.split(".")[:parts] == ours.split(".")[:parts]:
                continue
            told = f"{self.host} runs {name} {theirs}, this machine {name} {ours}"
            if needed:
                raise ServerError(
                    f"{told}: jobs of one cannot run on the other. Install the server's version of {name} here."
                )
            warnings.warn(f"{told}; numbers may differ from those of a local run.", stacklevel=3)

    def check_served(self, model_key: str) -> None:
        """Refuses a model that the server does not serve.

        Args:
            model_key: nnsight's key of the model.

        Raises:
            ServerError: Such a model, or a server that does not answer.
        """
        served = [
            one for one in self._get("/status").get("deployments", {}).values() if isinstance(one, dict)
        ]
        if any(_model_of(str(one.get("model_key", ""))) == _model_of(model_key) for one in served):
            return
        wanted = json.loads(model_key.partition(":")[2])
        same = sorted({str(one.get("repo_id")) for one in served if one.get("task") == wanted.get("task")})
        listed = ", ".join(same[:20]) or "none"
        raise ServerError(
            f"{self.host} does not serve {wanted.get('repo_id')} (revision {wanted.get('revision') or 'main'}, task "
            f"{wanted.get('task')}). It serves, of this task: {listed}. Load one of these, or load this one without "
            "remote=True."
        )

    def state(self, job: str) -> str:
        """The state of a submitted job on the server; "unknown" before the server has one.

        Raises:
            ServerError: The server does not answer.
        """
        with self.translated():
            answer = httpx.get(f"{self.host}/response/{job}", timeout=60.0, headers=self._headers)
            if answer.status_code == 404:
                return "unknown"
            answer.raise_for_status()
            return str(answer.json().get("status", "unknown"))

    def _get(self, path: str) -> Any:
        with self.translated():
            answer = httpx.get(
                self.host + path, timeout=httpx.Timeout(10.0, read=60.0), headers=self._headers
            )
            answer.raise_for_status()
            return answer.json()

    @property
    def _headers(self) -> dict[str, str]:
        return {"ndif-api-key": self.key} if self.key else {}

    @contextmanager
    def translated(self, backend: JobBackend | None = None) -> Iterator[None]:
        """Turns errors of nnsight, HTTP and websockets in the block into ours.

        Args:
            backend: The backend of the job that runs in the block; None without a job.

        Raises:
            ServerError: A server that cannot be reached, refuses or fails.
            InterpError: An error that was raised in the job on the server, of the same class, such as `EditError`.
        """
        try:
            yield
        except (RemoteError, *_LOST, ValueError) as error:
            if isinstance(error, InterpError):
                raise
            raise self._translation(error, backend) from error

    def _translation(self, error: Exception, backend: JobBackend | None) -> InterpError:
        told = str(error)[-_LONGEST:]
        cause = error if isinstance(error, httpx.HTTPStatusError) else error.__cause__
        if isinstance(cause, httpx.HTTPStatusError):
            return self._refusal(cause.response.status_code, told)
        lost = isinstance(error, _LOST) or isinstance(cause, _LOST)
        if lost and backend is None:
            return LostConnectionError(
                f"{self.host} cannot be reached ({type(error).__name__}: {told}). Is this machine online, and is "
                "NDIF_HOST, or nnsight's CONFIG.API.HOST, the right address?"
            )
        if lost and backend is not None:
            words = f"was lost {backend.place} ({type(error).__name__}: {told}). {_KEPT}"
            return LostConnectionError(f"the connection to {self.host} {words}")
        if backend is None or backend.job_id is None:
            return ServerError(
                f"no job can be sent to {self.host} ({told}). Check NDIF_HOST, or nnsight's CONFIG.API.HOST."
            )
        return _of_job(told, f"job {backend.job_id} failed on {self.host}")

    def _refusal(self, status: int, told: str) -> ServerError:
        """The error for an HTTP status."""
        if status in (401, 403):
            which = "the key it was given" if self.key else "a call without a key"
            return ServerError(
                f"{self.host} refuses {which} ({told}). Set NDIF_API_KEY to a key of that server, or run `nnsight "
                "login`."
            )
        if status == 400:
            ours = f"nnsight {version('nnsight')}, Python {sys.version.partition(' ')[0]}"
            return ServerError(
                f"{self.host} refuses this machine's {ours} ({told}). Install the versions it names."
            )
        return ServerError(f"{self.host} answers {status} ({told}). Try again later. {_KEPT}")


class LostConnectionError(ServerError):
    """A connection that broke; the same job may succeed when it is sent again."""


def _of_job(told: str, place: str) -> InterpError:
    """An error that was raised on the server, of our own class where the last line names one."""
    last = told.strip().splitlines()[-1] if told.strip() else "no words"
    name, _, message = last.partition(": ")
    kind = (
        getattr(errors, name.removeprefix("interp.errors."), None)
        if name.startswith("interp.errors.")
        else None
    )
    if isinstance(kind, type) and issubclass(kind, InterpError) and message:
        return kind(message)
    if "does not require grad" in last or "does not have a grad_fn" in last or "not have been used" in last:
        return ServerError(
            f"{place}: {last}. This server runs jobs apart from the model, where no gradient can flow. Ask its "
            "operators for a key with the tag `trusted`, or load the model without remote=True."
        )
    if "out of memory" in told.lower():
        return ServerError(f"{place}, out of memory: {last}. Give it fewer samples at once. {_KEPT}")
    whole = f"\n\n{told.strip()}\n\n" if told.strip() != last else ". "
    return ServerError(f"{place}: {last}{whole}{_KEPT}")


def _model_of(model_key: str) -> tuple[Any, ...]:
    """The model, revision and task of a model key, whatever the spelling of the key."""
    try:
        found = json.loads(model_key.partition(":")[2])
    except ValueError:
        return (model_key,)
    return found.get("repo_id"), found.get("revision") or "main", found.get("task")


class _Envelope(pickle.Unpickler):
    """Reads a status message: plain values and the class of states, and nothing that could run code."""

    def find_class(self, module: str, name: str, /) -> Any:
        """The class of states.

        Raises:
            UnpicklingError: The name of anything else.
        """
        if (module, name) == (Status.__module__, Status.__name__):
            return Status
        raise pickle.UnpicklingError(f"the server's message names {module}.{name}, which is not read")


_PLAIN = SimpleNamespace(Unpickler=_Envelope, __name__="interp_envelope")
"""The object that torch takes in place of the module `pickle`."""


class JobBackend(RemoteBackend):
    """nnsight's backend that runs one trace as a job of an NDIF server, and keeps the job's id and state.

    Args:
        connection: The connection to the server.
        model_key: nnsight's key of the model.
        env: The settings that the server makes before it runs the job.
        job: The id of a job that was sent before; None for a new job.
        blocking: Whether to wait for the result.

    Attributes:
        saved: Name → value that the block saved, once the job is done; None before.
        state: The last state that the server reported.
    """

    def __init__(
        self, connection: Connection, model_key: str, env: dict[str, Any], job: str | None, blocking: bool
    ) -> None:
        with connection.translated():
            super().__init__(
                model_key, connection.host, connection.key or "", env, blocking=blocking, job_id=job
            )
        self.api_key = connection.key or ""
        self.saved: dict[str, Any] | None = None
        self.state = "not sent"

    @property
    def place(self) -> str:
        """How far the job is, as text for an error."""
        if self.job_id is None:
            return "before the job was sent"
        return f"while job {self.job_id} was {self.state}"

    def __call__(self, tracer: Any = None) -> None:
        """Sends the block, and waits for the saved values where the backend is blocking."""
        if not self.blocking:
            self.submit(tracer)
            return
        from nnsight.schema.request import RequestModel

        asked = RequestModel(model_key=self.model_key, compress=self.compress, env=self.env)
        self.saved = self.request(asked, tracer)

    def fetch(self) -> dict[str, Any] | None:
        """The values that a submitted job has saved; None while it runs."""
        self.saved = self.poll()
        return self.saved

    def note(self, response: ResponseModel) -> bool:
        """Keeps the job's id and state, then does what nnsight does."""
        self.job_id = response.id
        if response.status is not Status.LOG:
            self.state = response.status.value
        return super().note(response)

    def _serialize(self, tracer: Any) -> bytes:
        pull_env()
        return serialised(tracer, compress=self.compress)

    @staticmethod
    def parse(message: str | bytes) -> ResponseModel:
        """A message of the server; a binary message is read as tensors and plain values only."""
        if not message:  # a closed socket gives an empty message
            raise websocket.WebSocketConnectionClosedException("the server closed the socket")
        if isinstance(message, str):
            return ResponseModel.model_validate_json(message)
        # written in a protocol of pickle that torch's own restricted reader does not know
        found = torch.load(io.BytesIO(message), map_location="cpu", weights_only=False, pickle_module=_PLAIN)
        return ResponseModel(**found)

    def finalize(self, content: bytes) -> dict[str, Any]:
        """The values that the block saved, read as tensors and plain values only."""
        if self.compress:
            import zstandard

            content = zstandard.ZstdDecompressor().decompress(content)
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def wait_for(
    fetch: Callable[[], dict[str, Any] | None], wait: float, timeout: float | None
) -> dict[str, Any] | None:
    """The first result of `fetch` that is not None; None once `timeout` seconds have passed."""
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        found = fetch()
        if found is not None:
            return found
        if until is not None and time.monotonic() + wait > until:
            return None
        time.sleep(wait)


_PACKAGE = __name__.partition(".")[0]


def serialised(tracer: Any, *, compress: bool) -> bytes:
    """An nnsight tracer and its block as the body of a request, as `nnsight.schema.request.RequestModel` reads it.

    Args:
        tracer: The tracer, whose block was captured.
        compress: Whether to compress the body with zstandard.
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
    """In the block, functions of `interp` are sent by value, not by name; afterwards cloudpickle is as before."""
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
        """A class of `interp` as its source and the names it uses; a caching function as the function it wraps.

        Anything else is sent as nnsight sends it.
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
        """The function inside a wrapper, such as a type checker's, whose globals are those that its source uses."""
        return super()._dynamic_function_reduce(inspect.unwrap(func))


def make_cached(function: Any, size: int | None) -> Any:
    """A function that caches its last `size` results; runs on the server, with an empty cache."""
    return lru_cache(maxsize=size)(function)


def make_class(
    source: str, name: str, module: str, filename: str, line: int, names: Mapping[str, Any]
) -> type:
    """Executes a class statement; runs on the server. `fill_class` adds the names that only its methods use."""
    space: dict[str, Any] = {"__name__": "builtins", **names}  # dataclasses look the class's module up
    flags = __future__.annotations.compiler_flag
    exec(compile("\n" * (line - 1) + source, filename, "exec", flags=flags, dont_inherit=True), space)
    made = space[name]
    made.__module__, made.names_of_methods = module, space
    return made


def fill_class(made: Any, names: Mapping[str, Any]) -> None:
    """Gives the methods of a class the names that they use; runs on the server."""
    made.names_of_methods.update(names)


@cache
def _parts(kind: type) -> tuple[str, int, str, frozenset[str], frozenset[str]]:
    """A class's source, first line and file; the names its statement uses at once, and those its methods use later."""
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
    """The names that a function reads and does not bind; annotations are not evaluated."""
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
