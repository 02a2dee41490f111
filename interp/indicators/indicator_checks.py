"""Checks of the arguments of indicators and methods; each error says what to give instead."""

from __future__ import annotations

from typing import Any, Literal

from interp.errors import ModelError, PromptError
from interp.inputs.argument_checks import check_bool, check_number, check_one_of, check_whole
from interp.inputs.prompt import Prompt, Target
from interp.tracing import Mllm, Site
from interp.tracing.site import LayerKind, Layers

__all__ = [
    "MOST_LAYERS",
    "check_bool",
    "check_call",
    "check_number",
    "check_one_of",
    "check_whole",
    "every_layer_of",
    "layers_of",
    "layers_to_json",
    "mixing_layers_of",
    "site_layers",
]

MOST_LAYERS = 10_000
"""More layers than any model has."""


def check_call(mllm: Any, prompt: Any = None, target: Any = Target()) -> None:  # noqa: B008 - frozen
    """Checks the model, the prompt and the target that an indicator or a method is called with.

    Raises:
        ModelError: `mllm` does not encode samples, as an `Mllm` does.
        PromptError: `prompt` is neither a `Prompt` nor None, or `target` is not a `Target`.
    """
    if not (hasattr(mllm, "encode") and hasattr(mllm, "family")):
        raise ModelError(
            f"expected a model first, as interp.load(…) or interp.wrap(…) give it; got {type(mllm).__name__}."
        )
    if prompt is not None and not isinstance(prompt, Prompt):
        raise PromptError(
            f"prompt is an interp.Prompt; got {prompt!r}. Write interp.Prompt(template=…), or leave it out."
        )
    if not isinstance(target, Target):
        raise PromptError(
            f'target is an interp.Target; got {target!r}. Write interp.Target("an answer"), or leave it out.'
        )


def site_layers(layers: Any) -> Literal["all"] | LayerKind | tuple[int, ...]:
    """The layers as a `Site` holds them: "all", a kind of layer, or a tuple.

    Raises:
        SiteError: Layers that are not indices.
    """
    found: Any = Site(layers=layers).layers
    return found


def layers_of(mllm: Mllm, layers: Layers, what: str) -> list[int]:
    """The chosen layers of this model, in the order given; `what`, named in errors, needs layers with a softmax.

    Raises:
        SiteError: Layers that the model does not have, or that have no softmax.
    """
    return list(mllm.decoder.softmax(Site(layers=layers), what))


def every_layer_of(mllm: Mllm, layers: Layers) -> list[int]:
    """The chosen layers of this model, of any kind, in the order given; "all" is every layer.

    Raises:
        SiteError: Layers that the model does not have.
    """
    return list(mllm.decoder.stream(Site(layers=layers)))


def mixing_layers_of(mllm: Mllm, layers: Layers) -> list[int]:
    """The chosen layers of this model in which tokens can be hidden from one another, in the order given.

    "all" is every layer except short convolutions; `Decoder.heads` refuses a short convolution that is named.

    Raises:
        SiteError: Layers that the model does not have, or short convolutions.
    """
    found = every_layer_of(mllm, layers)
    able = [layer for layer in found if mllm.linear_heads.get(layer, 1)]
    if layers != "all" and len(able) < len(found):
        mllm.decoder.heads(Site(layers=layers))
    return able


def layers_to_json(layers: Layers) -> Any:
    """Layers as `site_layers` gives them, as JSON."""
    return layers if isinstance(layers, str) else list(layers)
