"""What studies through TransformerLens say of their numbers: no shared prefix, and who computes them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from interp.errors import ModelError, RunError
from interp.study.task import StudyTask
from interp.study.transformer_lens import LensTask

pytestmark = pytest.mark.usefixtures("unchecked")


class Task(LensTask):
    """A task with a model that is given as it is."""

    def __init__(self, mllm: Any) -> None:
        self._made, self._given = None, mllm

    @property
    def mllm(self) -> Any:
        return self._given

    schemas = joined = measure = lambda *_: None


Task.__abstractmethods__ = frozenset()


@pytest.mark.parametrize(("server", "through"), [(None, "transformer_lens"), ("ndif", "server")])
def test_numbers_depend_on_who_computes_them(
    monkeypatch: pytest.MonkeyPatch, server: str | None, through: str
) -> None:
    monkeypatch.setattr(
        StudyTask, "to_dict", lambda _: {"study": "x", "plan": {"batch": 2, "prefix": "where exact"}}
    )
    found = Task(SimpleNamespace(server=server)).to_dict()
    assert found == {"study": "x", "plan": {"batch": 2, "prefix": "none"}, "through": through}


def test_a_lens_is_made_once_and_on_a_server_there() -> None:
    made: list[object] = []
    local = Task(SimpleNamespace(server=None, to_lens=lambda: made.append(1) or object()))
    assert local.lens is local.lens
    assert made == [1]

    def refuse() -> None:
        raise ModelError("no room.")

    with pytest.raises(RunError, match=r"cannot be read through TransformerLens: no room\."):
        _ = Task(SimpleNamespace(server=None, to_lens=refuse)).lens
    remote = Task(SimpleNamespace(server="ndif", to_lens=refuse)).lens
    assert type(remote).__name__ == "ServedLens"
