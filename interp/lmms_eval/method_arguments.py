"""The method that lmms-eval's `--model_args` name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from interp.data.open import named
from interp.errors import StudyError
from interp.inputs.text import meant
from interp.methods import HGAI, PAI, AdaptVis, Method, Plain, VGRefine, ViCrop
from interp.models.refusals import ANSWERS_ONLY
from interp.study import ModelSpec
from interp.study.refinement.method_choice import grounding
from interp.study.refinement.task import resolved

__all__ = ["METHODS", "method_of"]

SIMPLE: Mapping[str, Callable[[], Method]] = {
    "plain": Plain,
    "pai": PAI,
    "adaptvis": AdaptVis,
    "hgai": HGAI,
    "vicrop": ViCrop,
}
REFINED: Mapping[str, Literal["code", "paper"]] = {"vgrefine": "code", "vgrefine_paper": "paper"}
METHODS = (*SIMPLE, *REFINED)
"""The values of `method=`."""


def method_of(
    name: str, spec: ModelSpec, mllm: Any, *, heads: str, layers: str, choose_on: str, n: int, out: str
) -> Method:
    """Returns the method of a name; VGRefine's heads and layers as given, published, or chosen on validation samples.

    Args:
        name: One of `METHODS`.
        spec: The model's spec, for published heads and for choosing them.
        mllm: The model.
        heads: VGRefine's heads as "layer-head+layer-head"; "" for published or chosen ones.
        layers: The layers that VGRefine masks, as "16+17"; "" for the published or the chosen one.
        choose_on: Data with boxes on whose validation split heads and layer are chosen.
        n: The largest number of samples to choose on.
        out: The folder for runs that choose heads.

    Raises:
        StudyError: The name is unknown, heads or layers cannot be read or do not belong to the method, or the model
            only answers and takes no method.
    """
    if name not in METHODS:
        raise StudyError(f"method is one of {', '.join(METHODS)}; got {name!r}.{meant(name, METHODS)}")
    if name != "plain" and spec.adapter == ANSWERS_ONLY:
        raise StudyError(f"a model that only answers takes no method; got method={name}. Leave it out.")
    if name in SIMPLE:
        if heads or layers:
            raise StudyError(f"heads= and layers= are for method=vgrefine; got method={name}.")
        return SIMPLE[name]()
    masked = tuple(_number(part, "layers") for part in layers.split("+") if part)
    if heads:
        if not masked:
            raise StudyError("VGRefine with given heads needs the layers it masks, such as layers=16.")
        return VGRefine(heads=_pairs(heads), layers=masked, variant=REFINED[name])
    found = grounding(spec, named(choose_on, split="validation", n=n), out=out)
    print(found.said)
    method = VGRefine(heads=found.heads, layers=masked or (found.layer,), variant=REFINED[name])
    return resolved(method, out, mllm=mllm)


def _pairs(heads: str) -> tuple[tuple[int, int], ...]:
    pairs = []
    for pair in heads.split("+"):
        layer, dash, head = pair.partition("-")
        if not dash:
            raise StudyError(f'heads are "layer-head+layer-head", such as heads=15-4+16-5; got {heads!r}.')
        pairs.append((_number(layer, "heads"), _number(head, "heads")))
    return tuple(pairs)


def _number(text: str, name: str) -> int:
    if not text.strip().isdecimal():
        raise StudyError(f"{name} are whole numbers joined by +; got {text!r}.")
    return int(text)
