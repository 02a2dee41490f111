from __future__ import annotations

import pytest

from interp.errors import EditError, SiteError
from interp.tracing import Knockout, Rows, Site


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"site": "last"}, r"Knockout takes a Site first, such as Site\(layers=\[16\]\); got 'last'"),
        ({"site": Site(), "mode": "drop"}, r'mode is "renormalise" or "zero"; got \'drop\''),
        (
            {"site": Site(queries="after_image"), "steps": "decode"},
            r'queries "last" or "answer"; with steps="decode", queries=\(\'after_image\',\) name none',
        ),
        (
            {"site": Site(), "steps": "generate"},
            r'steps is "prefill", "decode" or "all"; got \'generate\'',
        ),
    ],
)
def test_wrong_knockouts_are_explained(arguments, message, unchecked):
    with pytest.raises(EditError, match=message):
        Knockout(**arguments)


def test_wrong_reads_are_explained(unchecked):
    with pytest.raises(
        SiteError, match=r"Rows reads a Site, as in Rows\(Site\(layers=\[14\]\)\); got 'last'"
    ):
        Rows("last")
    with pytest.raises(SiteError, match=r'reduce is None or "head"; got \'layer\''):
        Rows(Site(), reduce="layer")


def test_stages():
    assert Knockout(Site()).stage == "scores"
    assert Knockout(Site(), "zero").stage == "probabilities"
