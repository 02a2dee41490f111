"""Arrays inside edits, worked by hand: what is taken for one per sample, what is refused, and what compares equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interp.errors import EditError, SiteError
from interp.tracing import Knockout, PatchRows, Site, image_mask
from interp.tracing.values import Values, for_samples

TABLE = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


@pytest.mark.parametrize(
    ("given", "ndim", "arrays", "per_sample"),
    [
        (TABLE, 2, [TABLE.tolist()], False),
        (TABLE, 1, [[1, 2, 3], [4, 5, 6]], True),  # one dimension more: the samples'
        ([TABLE[0], TABLE[1, :2]], 1, [[1, 2, 3], [4, 5]], True),
        ([TABLE[0]], 1, [[1, 2, 3]], True),
        (torch.tensor(TABLE, dtype=torch.bfloat16, requires_grad=True), 2, [TABLE.tolist()], False),
    ],
)
def test_one_array_for_all_samples_or_one_for_each(
    given: Any, ndim: int, arrays: list[Any], per_sample: bool
) -> None:
    found = Values.of(given, ndim)
    assert [one.tolist() for one in found.arrays] == arrays
    assert found.per_sample is per_sample
    assert all(one.dtype == np.float32 for one in found.arrays)
    assert Values.of(found, 7) is found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (TABLE[None, None], r"an array of 1 dimension, .*got shape \(1, 1, 2, 3\)"),
        ([TABLE[0], TABLE], r"an array of 1 dimension, .*got shape \(2, 3\)"),
        ([TABLE[0], np.array([np.nan])], "values must be finite"),
        (np.array([-np.inf]), "values must be finite"),
        (np.array([1e300]), "values must be finite"),
        ([], "one array per sample; got none"),
        (range(3), r"got range\(0, 3\)"),
        ("abc", "values are numbers .*got str"),
        (object(), "values are numbers .*got object"),
        ([{}], "values are numbers .*got dict"),
        ([10**400], "values are numbers .*got int"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(given: Any, message: str, unchecked: None) -> None:
    with pytest.raises(EditError, match=message):
        Values.of(given, 1)


def test_values_are_read_only_and_their_own() -> None:
    given = TABLE.astype(np.float32)
    found = Values.of(given, 2)
    given[0, 0] = 9
    assert found.arrays[0][0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        found.arrays[0][0, 0] = 9


def test_values_of_some_samples() -> None:
    each, one = Values.of(TABLE, 1), Values.of(TABLE[0], 1)
    assert each.of_sample(1, 2).tolist() == [4, 5, 6]
    assert one.of_sample(1, 2).tolist() == [1, 2, 3]
    part = each.part([1], 2)
    assert (part.arrays[0].tolist(), part.per_sample) == ([4, 5, 6], True)
    assert [row.tolist() for row in each.part([1, 0], 2).arrays] == [[4, 5, 6], [1, 2, 3]]
    assert one.part([1], 5) is one
    for call in (lambda: each.of_sample(0, 3), lambda: each.part([0], 1)):
        with pytest.raises(EditError, match="values hold 2 arrays for a batch of"):
            call()


def test_values_are_equal_by_shape_numbers_and_kind() -> None:
    made = [
        Values.of(TABLE, 2),
        Values.of(TABLE.reshape(3, 2), 2),
        Values.of([TABLE], 2),
        Values.of(-TABLE, 2),
    ]
    assert len({one.digest for one in made}) == len(set(made)) == 4
    assert made[0] == Values.of(TABLE.copy(), 2)
    assert hash(made[0]) == hash(Values.of(TABLE.copy(), 2))
    assert made[0] != made[0].digest
    assert made[0] != made[1]


def test_a_repr_shows_three_shapes() -> None:
    assert repr(Values.of([TABLE[0]] * 3, 1)) == "Values((3,), (3,), (3,))"
    assert repr(Values.of([TABLE[0]] * 4, 1)) == "Values((3,), (3,), (3,), …)"


def test_masks_and_values_of_a_sample_stay_with_it() -> None:
    """Queries and keys apart, alone or among other groups; what holds nothing per sample is the same object."""
    masks = image_mask([np.array([True]), np.array([False, True])])
    second = image_mask([np.array([False, True])])
    common = Knockout(Site(keys=image_mask([True])))
    given = [Knockout(Site(queries=masks)), Knockout(Site(keys=("last", masks))), common]
    found = for_samples(given, [1], 2)
    assert found[0] == Knockout(Site(queries=second))
    assert found[1] == Knockout(Site(keys=("last", second)))
    assert found[2] is common
    assert given[0] == Knockout(Site(queries=masks))
    rows = [np.zeros((1, 1, 1, 1)), np.ones((1, 1, 1, 1))]
    patched = for_samples([PatchRows(Site(), rows)], [1], 2)[0]
    assert patched == PatchRows(Site(), rows[1:])
    with pytest.raises(SiteError, match="image_mask holds 2 masks for a batch of 3 samples"):
        for_samples(given, [0], 3)
    with pytest.raises(EditError, match="values hold 2 arrays for a batch of 3 samples"):
        for_samples([PatchRows(Site(), rows)], [0], 3)
