"""Methods by name, with their published constants, and those whose name is not enough."""

from __future__ import annotations

import pytest

from interp.errors import MethodError
from interp.methods import HGAI, PAI, VCD, AdaptVis, Plain, ViCrop
from interp.methods.names import NAMED_METHODS, is_refine, method_named


def test_each_name_makes_its_method_with_published_constants() -> None:
    made = {name: method_named(name) for name in NAMED_METHODS}
    expected = [Plain(), PAI(), AdaptVis(), HGAI(), VCD(), ViCrop()]
    assert made == {one.name: one for one in expected}
    assert method_named("adapt-vis") == AdaptVis()


@pytest.mark.usefixtures("unchecked")
def test_a_name_that_is_not_enough_says_what_is_missing() -> None:
    for name, said in (
        ("vgrefine", "VGRefine needs heads of the model"),
        ("Scaling Vis", r"ScalingVis needs a weight, such as ScalingVis\(1.2\)"),
        ("ccd", "CCD needs findings"),
        ("other", "the methods by name are Plain, PAI, AdaptVis, HGAI, VCD, ViCrop; got 'other'"),
        (3, "the methods by name are"),
    ):
        with pytest.raises(MethodError, match=said):
            method_named(name)  # pyright: ignore[reportArgumentType]
    assert [is_refine(one) for one in ("VG-Refine", "PAI", "", None, 3)] == [True, False, False, False, False]
