"""A run belongs to the model as it was: a model that changed gets a folder of its own, or the run is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.conformance.tiny import tiny
from interp.data import Samples, bundled
from interp.errors import RunError
from interp.indicators import Attention, Maps
from interp.study import LayerSweep
from interp.tracing import Mllm, wrap


@pytest.fixture(scope="module")
def data() -> Samples:
    return bundled("natural", n=4)


@pytest.fixture
def mllm() -> Mllm:
    return wrap(*tiny("llava"))


def zero_weights(mllm: Mllm) -> None:
    with torch.no_grad():
        mllm.hf.get_decoder().layers[0].self_attn.q_proj.weight.zero_()


@contextmanager
def changed(mllm: Mllm, name: str) -> Iterator[None]:
    """The model with a change that a user may make between two runs."""
    with CHANGES[name](mllm) or nullcontext():
        yield


def hook(mllm: Mllm) -> Any:
    return mllm.hf.get_decoder().layers[0].mlp.register_forward_hook(lambda _, __, out: out * 2)


def template(mllm: Mllm) -> None:
    mllm.processor.chat_template = "{{ messages[0]['content'] }}"


def pixels(mllm: Mllm) -> None:
    mllm.processor.image_processor.image_mean = [0.1, 0.1, 0.1]


CHANGES: dict[str, Callable[[Mllm], AbstractContextManager[Any] | None]] = {
    "weights": zero_weights,
    "half": lambda mllm: mllm.hf.half() and None,
    "hook": hook,
    "template": template,
    "pixels": pixels,
    "autocast": lambda _: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_model_makes_another_run(mllm: Mllm, data: Samples, name: str) -> None:
    study = LayerSweep(data=data, model=mllm, metrics=("ar",))
    before = study.to_dict(mllm)
    assert study.to_dict(mllm) == before
    with changed(mllm, name):
        assert study.to_dict(mllm)["model"] != before["model"]


def test_the_attention_implementation_is_named(data: Samples) -> None:
    model, processor = tiny("llava")
    model.set_attn_implementation("eager")
    mllm = wrap(model, processor)
    assert LayerSweep(data=data, model=mllm).to_dict(mllm)["model"]["attention"] == "eager"


def test_weights_set_back_find_their_run_again(mllm: Mllm, data: Samples, tmp_path: Path) -> None:
    indicator = Noting()
    study = LayerSweep(data=data, model=mllm, metrics=("ar",), indicator=indicator)
    weight = mllm.hf.get_decoder().layers[0].self_attn.q_proj.weight
    kept = weight.detach().clone()
    first = study.run(tmp_path, progress=False)
    zero_weights(mllm)
    second = study.run(tmp_path, progress=False)
    assert second.folder != first.folder
    assert abs(second.scores.value - first.scores.value).max() > 1e-3
    assert len(indicator.calls) == 2
    with torch.no_grad():
        weight.copy_(kept)
    assert study.run(tmp_path, progress=False).folder == first.folder
    assert len(indicator.calls) == 2


@dataclass(frozen=True)
class Noting:
    """Attention that notes its calls, and does something to the model after the n-th."""

    after: int = 0
    act: Callable[[Mllm], None] = zero_weights
    calls: list[int] = field(default_factory=list, compare=False)

    def __call__(self, mllm: Mllm, samples: Any, **options: Any) -> Maps:
        self.calls.append(len(samples))
        maps = Attention()(mllm, samples, **options)
        if len(self.calls) == self.after:
            self.act(mllm)
        return maps

    def to_dict(self) -> dict[str, Any]:
        return {"indicator": "noting"}


def test_a_model_that_changes_meanwhile_stores_nothing_more(mllm: Mllm, tmp_path: Path) -> None:
    study = LayerSweep(data=bundled("natural", n=8), model=mllm, indicator=Noting(after=2), batch=1)
    with pytest.raises(RunError, match=r"its fingerprint changed while the study ran .* folder of its own"):
        study.run(tmp_path, progress=False)  # two shards of four micro-batches; it changes in the first
    assert list(tmp_path.glob("*/shards/*")) == []
    assert len(study.run(tmp_path, progress=False).samples) == 8
    assert len(list(tmp_path.iterdir())) == 2


def test_a_shard_stored_before_the_change_is_kept(mllm: Mllm, tmp_path: Path) -> None:
    study = LayerSweep(data=bundled("natural", n=8), model=mllm, indicator=Noting(after=5), batch=1)
    with pytest.raises(RunError, match="changed while the study ran"):
        study.run(tmp_path, progress=False)
    assert len(list(tmp_path.glob("*/shards/*.json"))) == 1


@pytest.mark.parametrize("queries", ["label", "last"])
def test_labels_count_where_they_are_read(mllm: Mllm, data: Samples, queries: str) -> None:
    named = Samples([one.replace(meta={**one.meta, "label": "thing"}, id=one.id) for one in data], data.name)
    indicator = Attention(queries=queries)
    a, b = (
        LayerSweep(data=each, model=mllm, indicator=indicator).to_dict(mllm)["data"] for each in (data, named)
    )
    assert a["fingerprint"] == b["fingerprint"]  # a sample's meta is no part of it
    assert (a != b) == (queries == "label")
