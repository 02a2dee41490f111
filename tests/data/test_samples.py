from __future__ import annotations

import numpy as np
import pytest

from interp.data import Samples
from interp.errors import DataError
from interp.inputs.sample import Sample


def grey(value: int, question: str = "What is it?", group: str | None = None) -> Sample:
    return Sample(image=np.full((4, 6), value, np.uint8), question=question, group=group)


@pytest.fixture
def four() -> Samples:
    return Samples([grey(i, group=f"g{i % 2}") for i in range(4)], name="four")


def test_a_slice_is_samples_and_an_index_a_sample(four: Samples) -> None:
    assert isinstance(four[1:3], Samples)
    assert four[1:3].name == "four"
    assert list(four[1:3]) == [four[1], four[2]]
    assert four[-1] == grey(3, group="g1")
    with pytest.raises(IndexError):
        four[4]


def test_filter_keeps_order_and_name(four: Samples) -> None:
    odd = four.filter(lambda sample: sample.group == "g1")
    assert list(odd) == [four[1], four[3]]
    assert odd.name == "four"


def test_fingerprint_is_of_content_and_order_not_of_the_name(four: Samples) -> None:
    assert four.fingerprint == Samples(list(four), name="other").fingerprint
    assert four.fingerprint != four[::-1].fingerprint
    assert four.fingerprint != four[:3].fingerprint
    changed = Samples([four[0].replace(question="Where is it?"), *four[1:]])
    assert four.fingerprint != changed.fingerprint


def test_concatenation(four: Samples) -> None:
    more = Samples([grey(9)], name="more")
    assert list(four + more) == [*four, grey(9)]
    assert (four + more).name == "four + more"
    assert (four + four).name == "four"
    with pytest.raises(TypeError):
        _ = four + 9  # type: ignore[operator]


def test_ids_are_the_samples_ids_in_order(four: Samples) -> None:
    named = Samples([four[0].replace(id="a"), four[1]])
    assert named.sample_ids == ("a", four[1].fingerprint[:12])


def test_only_samples_are_held() -> None:
    with pytest.raises(DataError, match="element 1 is of type str"):
        Samples(thing for thing in (grey(0), "scan.png"))  # type: ignore[misc]


def test_repr_counts_samples_and_groups(four: Samples) -> None:
    assert repr(four) == "Samples('four': 4 samples in 2 groups)"
