"""What the options of `check` reach, and which are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interp.conformance import CheckResult, Measured, Subject, check, suite
from interp.conformance.suite import moved
from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.tracing import wrap


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Subject]:
    """The subjects of the only two checks that there are."""
    found: list[Subject] = []

    def one(subject: Subject) -> Measured:
        found.append(subject)
        return Measured(0.0, "nothing", 1.0, "")

    monkeypatch.setattr(suite, "CHECKS", {"image tokens": one, "locality": one})
    return found


def test_every_option_reaches_the_checks(seen: list[Subject], monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(suite, "tiny", lambda family, seed: made.append((family, seed)) or tiny(family))
    picture = np.zeros((5, 7, 3), np.uint8)
    found = check("llava", images=[picture], probes=5, seed=7, dtype="bfloat16")
    assert found.model == "llava, tiny random weights"
    assert made == [("llava", 7)]
    one, other = seen
    assert one is other
    assert (one.seed, one.probes, one.trained) == (7, 5, False)
    assert one.mllm.dtype == torch.bfloat16
    assert [given.shape for given in one.given] == [(5, 7, 3)]
    broken = check("llava", break_as="shifted")
    assert broken.model == "llava, tiny random weights, faulty adapter: shifted"


def test_a_familys_tiny_model_is_checked_with_the_adapter_given(seen: list[Subject]) -> None:
    mine = type("Mine", (type(wrap(*tiny("llava")).adapter),), {})()
    check("llava", adapter=mine)
    assert seen[0].mllm.adapter is mine


def test_a_name_is_loaded_with_every_option(seen: list[Subject], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    mllm = wrap(*tiny("llava"))
    monkeypatch.setattr(suite, "load", lambda *given, **options: asked.append((given, options)) or mllm)
    options = {"device": "meta", "dtype": "float16", "revision": "r", "adapter": "llava", "processor": "p"}
    assert check("org/name", **options).model == "org/name (llava)"
    assert asked == [(("org/name",), options)]


def test_another_seed_makes_other_pictures() -> None:
    mllm = wrap(*tiny("llava"))
    first, again, other = (Subject(mllm, seed=seed).pictures for seed in (3, 3, 4))
    assert [one.shape for one in first] == [one.shape for one in other]
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert all((a != b).any() for a, b in zip(first, other, strict=True))


def test_weights_with_a_name_are_trained(seen: list[Subject], tmp_path: Any) -> None:
    hf, processor = tiny("llava")
    for part in (hf, processor):
        part.save_pretrained(tmp_path)
    mllm = wrap(hf, processor)
    assert not mllm.hf.name_or_path
    check(mllm)
    assert check(tmp_path).model == f"{tmp_path} (llava)"
    mllm.hf.name_or_path = "org/name"
    check(mllm)
    assert [one.trained for one in seen[::2]] == [False, True, True]


def test_results_are_told_as_they_come(seen: list[Subject], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Any]] = []
    monkeypatch.setattr(suite.time, "perf_counter", iter([0.0, 4.0, 10.0, 11.0]).__next__)

    def finished(result: CheckResult, left: float) -> None:
        told.append((result.name, (result.seconds, left)))

    check("llava", progress=lambda name: told.append((name, "begins")), finished=finished)
    assert told == [
        ("image tokens", "begins"),
        ("image tokens", (4.0, 120.0)),  # locality takes 60 parts, image tokens 2
        ("locality", "begins"),
        ("locality", (1.0, 0.0)),
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"probes": 0}, "probes"),
        ({"seed": -1}, "seed"),
        ({"images": "picture.png"}, r"images is a list of pictures; got 'picture.png'\. Write images="),
        ({"progress": "loud"}, "progress is a function of a check's name, or None; got 'loud'"),
        ({"finished": 3}, "finished is a function of a result and the seconds left, or None; got 3"),
        ({"checks": []}, "checks are named .*; got none"),
        ({"checks": ["rows", 3]}, r"checks are named .*; got \[3\]"),
        ({"checks": ["row"]}, r"got \['row'\].*rows"),
        ({"dtype": "int8"}, "dtype is a name such as .*floating torch.dtype; got 'int8'"),
        ({"dtype": "nonsense"}, "dtype is a name such as .*; got 'nonsense'"),
        ({"device": "nowhere"}, "device is a name such as .*; got 'nowhere'"),
        ({"break_as": "twisted"}, "the fault of an adapter is one of transposed.*got 'twisted'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_options_of_another_kind_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        check("llava", **options)


def test_one_check_may_be_named_alone(unchecked: None) -> None:
    found: Any = check("llava", checks="tiling")  # pyright: ignore[reportArgumentType]
    assert [row.name for row in found.rows] == ["tiling"]


def test_complex_buffers_stay_complex_in_another_dtype() -> None:
    model = torch.nn.Module()
    model.register_buffer("turns", torch.tensor([1 + 2j]))
    model.register_buffer("scale", torch.tensor([1.5]))
    inner = torch.nn.Linear(1, 1)
    inner.register_buffer("turns", torch.tensor([3j]))
    model.inner = inner
    found = moved(model, "cpu", "bfloat16")
    assert found.turns.tolist() == [1 + 2j]
    assert found.inner.turns.tolist() == [3j]
    assert (found.scale.dtype, found.inner.weight.dtype) == (torch.bfloat16, torch.bfloat16)
    elsewhere = moved(model, "meta", torch.float32)
    assert {one.device.type for one in (*elsewhere.buffers(), *elsewhere.parameters())} == {"meta"}
    assert elsewhere.turns.is_complex()


def test_an_error_without_words_still_says_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def bare(subject: Subject) -> Measured:
        raise ZeroDivisionError

    def told(subject: Subject) -> Measured:
        raise ModelError("the words of our own")

    monkeypatch.setattr(suite, "CHECKS", {"rows": bare, "tiling": told})
    monkeypatch.setattr(suite.time, "perf_counter", iter([0.0, 2.0, 2.0, 5.0]).__next__)
    found = check("llava")
    assert [row.seconds for row in found.rows] == [2, 3]
    assert [row.detail for row in found.rows] == ["ZeroDivisionError: no message", "the words of our own"]
    assert not found.passed
