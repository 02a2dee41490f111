"""PAI and HGAI: raise the attention scores of the image; PAI also guides logits away from those of the text alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from interp.errors import MethodError
from interp.indicators.indicator_checks import check_number, check_one_of
from interp.methods.method import EditedGeneration
from interp.methods.published_layers import chosen_layers, editable_layers, layer_indices
from interp.tracing import Boost, Contrast, Decoding, Guide, Mllm, Site

__all__ = ["ALPHAS", "HGAI", "PAI"]


ALPHAS = {"code": 0.2, "paper": 0.5}
PAI_LAYERS = range(2, 32)
DEPTH = 32


@dataclass(frozen=True)
class PAI(EditedGeneration):
    """Pay attention to image: boosted image scores, and classifier-free guidance against the text alone.

    Scores, before the softmax: in the last row of every pass, prefill and decode, all heads of the layers, the
    scaled score e of each image token becomes e + α|e|.

    Logits: s are the logits of the edited model, u those of the unedited model on the same prompt and generated tokens
    without the image tokens. Each step's logits become γ(s − u) + u, and −∞ where s < max s + ln(cutoff). The source
    uses log-probabilities for s and u; this shifts all logits of a step by one constant and changes no token or
    probability.

    Args:
        variant: The source of α where `alpha` is None: 0.2 for "code", 0.5 for "paper".
        alpha: α ≥ 0; 0 boosts nothing. None takes the variant's.
        gamma: γ; with 1 there is no guidance and no second pass.
        cutoff: The smallest probability, relative to the most probable token's, that is not excluded; in (0, 1].
        layers: The boosted layers. None: layers 2 … 31 of LLaVA-1.5-7B's 32, and the same fractions of another depth
            (`scaled_layers`).

    Raises:
        MethodError: A parameter out of its range.

    Source: arXiv 2407.21771 and its official code, which recommends the guidance with nucleus sampling; here decoding
    is greedy. The source does not say which layers to use at another depth.
    """

    variant: Literal["code", "paper"] = "code"
    alpha: float | None = None
    gamma: float = 1.1
    cutoff: float = 0.1
    layers: Sequence[int] | None = None
    name: ClassVar[str] = "PAI"

    def __post_init__(self) -> None:
        check_one_of("variant", self.variant, ALPHAS, MethodError)
        check_number("alpha", self.strength, low=0.0, error=MethodError)
        check_number("gamma", self.gamma, error=MethodError)
        check_number("cutoff", self.cutoff, low=0.0, high=1.0, open_low=True, error=MethodError)
        object.__setattr__(
            self, "layers", layer_indices(self.layers, "layers 2 … 31 of 32, scaled to the depth")
        )

    @property
    def strength(self) -> float:
        """α: `alpha`, or the variant's if it is None."""
        return ALPHAS[self.variant] if self.alpha is None else self.alpha

    def boosted_layers(self, n_layers: int) -> tuple[int, ...]:
        """The boosted layers in a model of that depth."""
        return chosen_layers(self.layers, PAI_LAYERS, depth=DEPTH, n_layers=n_layers)

    def edits(self, mllm: Mllm) -> list[Boost]:
        """The boost, for `mllm.trace`; none when α is 0."""
        layers = editable_layers(mllm, self.boosted_layers(mllm.n_layers), self.layers)
        site = Site(layers=layers, queries="last", keys="image")
        return [Boost(site, self.strength, steps="all")] if self.strength else []

    @property
    def decoding(self) -> Decoding:
        """Greedy decoding under the guidance, for `mllm.trace`."""
        return Decoding(contrast=None if self.gamma == 1 else Contrast(gamma=self.gamma, cutoff=self.cutoff))

    def to_dict(self) -> dict[str, Any]:
        """The method as JSON values."""
        return {
            "method": self.name,
            "variant": self.variant,
            "alpha": self.strength,
            "gamma": self.gamma,
            "cutoff": self.cutoff,
            "layers": None if self.layers is None else list(self.layers),
        }


HGAI_LAYERS = range(5, 19)


@dataclass(frozen=True)
class HGAI(EditedGeneration):
    """Heads guided attention intervention: image scores rise where the heads' mean absolute score is large.

    Before the softmax, in the last row of every pass, prefill and decode, the scaled score e_h of each image token
    in head h becomes e_h + α · mean over all heads h′ of the layer of |e_h′|.

    Args:
        alpha: α ≥ 0; 0 changes nothing.
        layers: The guided layers. None: layers 5 … 18, both included, of LLaVA-1.5-7B's 32, and the same fractions of
            another depth (`scaled_layers`).

    Raises:
        MethodError: A parameter out of its range.

    Source: arXiv 2411.16724 and its official code. The formula names no pass; the code edits the last row of every pass
    of generate(), as here. The source does not say which layers to use at another depth. The code also offers an
    aggregation over the heads with most image attention; this class does not.
    """

    alpha: float = 0.5
    layers: Sequence[int] | None = None
    name: ClassVar[str] = "HGAI"

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, low=0.0, error=MethodError)
        object.__setattr__(
            self, "layers", layer_indices(self.layers, "layers 5 … 18 of 32, scaled to the depth")
        )

    def guided_layers(self, n_layers: int) -> tuple[int, ...]:
        """The guided layers in a model of that depth."""
        return chosen_layers(self.layers, HGAI_LAYERS, depth=DEPTH, n_layers=n_layers)

    def edits(self, mllm: Mllm) -> list[Guide]:
        """The guidance, for `mllm.trace`; none when α is 0."""
        layers = editable_layers(mllm, self.guided_layers(mllm.n_layers), self.layers)
        site = Site(layers=layers, queries="last", keys="image")
        return [Guide(site, self.alpha, steps="all")] if self.alpha else []

    def to_dict(self) -> dict[str, Any]:
        """The method as JSON values."""
        layers = None if self.layers is None else list(self.layers)
        return {"method": self.name, "alpha": self.alpha, "layers": layers}
