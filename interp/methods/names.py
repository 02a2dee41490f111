"""Methods by name, with their published constants: for studies, scripts and the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from interp.errors import MethodError
from interp.inputs.text import brief, meant
from interp.methods.contrastive_decoding import VCD
from interp.methods.method import Method, Plain
from interp.methods.pai_and_hgai import HGAI, PAI
from interp.methods.scalingvis import AdaptVis
from interp.methods.vicrop import ViCrop

__all__ = ["NAMED_METHODS", "REFINES", "is_refine", "method_named"]

NAMED_METHODS: Mapping[str, Callable[[], Method]] = MappingProxyType(
    {"Plain": Plain, "PAI": PAI, "AdaptVis": AdaptVis, "HGAI": HGAI, "VCD": VCD, "ViCrop": ViCrop}
)
"""Name → makes the method with its published constants."""
REFINES = "VGRefine"
"""The method that needs heads of its model, so that its name is enough only beside a model with published heads."""
LACKING = {
    REFINES: "heads of the model, such as VGRefine(heads=interp.HeadRanking(data=…).top(20))",
    "ScalingVis": "a weight, such as ScalingVis(1.2)",
    "CCD": "findings, such as CCD({sample.id: …})",
}
"""Methods for which a name is not enough, and what they need."""


def method_named(name: str) -> Method:
    """Returns the method of a name, with its published constants. Case, hyphens and spaces are ignored.

    Raises:
        MethodError: No method has that name, or the method needs more than its name.

    >>> method_named("pai")
    PAI(variant='code', alpha=None, gamma=1.1, cutoff=0.1, layers=None)
    """
    found = {_key(one): make for one, make in NAMED_METHODS.items()}.get(_key(name))
    if found is not None:
        return found()
    needs = {_key(one): f"{one} needs {what}" for one, what in LACKING.items()}.get(_key(name))
    if needs is not None:
        raise MethodError(f"{needs}. Make the method and pass it in place of the name {name!r}.")
    raise MethodError(
        f"the methods by name are {', '.join(NAMED_METHODS)}; got {brief(name)}."
        f"{meant(name, (*NAMED_METHODS, *LACKING))} Or pass a method, such as PAI() or VGRefine(heads=…)."
    )


def is_refine(name: object) -> bool:
    """Whether a name is that of VGRefine, which a study completes with its model's published heads."""
    return _key(name) == _key(REFINES)


def _key(name: object) -> str:
    return "".join(one for one in name.lower() if one.isalnum()) if isinstance(name, str) else ""
