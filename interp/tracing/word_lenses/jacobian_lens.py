"""The Jacobian lens: the words that a residual stream makes likely, by its average effect on the last layer."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp.errors import ModelError, PromptError
from interp.inputs.argument_checks import check_whole
from interp.inputs.files import file_checksum, unreadable
from interp.inputs.text import brief
from interp.tracing.cost import Meter
from interp.tracing.lens.lens import Lens, make_lens
from interp.tracing.lens.logit_lens import WordScores, score_words, spellings, token_text
from interp.tracing.passes.progress_bar import progress_bar
from interp.tracing.word_lenses.corpus import as_corpus, corpus_digest, filled, packed
from interp.tracing.word_lenses.word_lens import need_weights_here
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["JacobianLens", "Jacobians", "fit_jacobians", "load_jacobians"]

SKIPPED = 16
"""The number of first positions of a prompt that the average leaves out, as in the source: their streams hold little
content."""
DIMENSIONS = 8
"""Output dimensions of one backward pass; the prompt is repeated that often."""
_KIND = "interp Jacobian lens"


@dataclass(frozen=True, eq=False)
class Jacobians:
    """The average effect of the stream after each layer on the stream after the last one. Made by `fit_jacobians`.

    Attributes:
        matrices: Layer → float32 (hidden, hidden) on the CPU: ∂ stream after the last layer / ∂ stream after this
            layer, summed over this and later positions, averaged over positions and prompts. The last layer, whose
            matrix is the identity, is left out.
        n_prompts: The number of prompts in the average.
        model: A hash of the weights that the Jacobians were fitted on.
        corpus: A hash of the prompts.
    """

    matrices: Mapping[int, Float[Tensor, "hidden hidden"]]
    n_prompts: int
    model: str
    corpus: str

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes a safetensors file of 4 · layers · hidden² bytes; `load_jacobians` and `JacobianLens(file)` read it.

        Raises:
            ModelError: A path that does not end in .safetensors.
        """
        place = Path(path)
        if place.suffix != ".safetensors":
            raise ModelError(
                f"Jacobians are stored as safetensors; got {place.name!r}. Write name.safetensors."
            )
        about = {"kind": _KIND, "n_prompts": str(self.n_prompts), "model": self.model, "corpus": self.corpus}
        tensors = {f"layer.{layer}": matrix.contiguous() for layer, matrix in self.matrices.items()}
        save_file(tensors, place, metadata=about)
        return place


def load_jacobians(path: str | os.PathLike[str]) -> Jacobians:
    """The Jacobians of a file that `Jacobians.save` wrote.

    Raises:
        ModelError: A file that does not exist, is damaged or holds something else.
    """
    place = _file(path)
    try:
        with safe_open(place, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{place} is not a complete safetensors file ({brief(str(error))}). Fit it again: "
            "fit_jacobians(mllm, corpus).save(path)."
        ) from error
    if about.get("kind") != _KIND:
        raise ModelError(
            f"{place} holds no Jacobians. Give a file that fit_jacobians(mllm, corpus).save(path) wrote."
        )
    matrices = {int(name.rpartition(".")[2]): one.float() for name, one in tensors.items()}
    return Jacobians(dict(sorted(matrices.items())), int(about["n_prompts"]), about["model"], about["corpus"])


def _file(path: Any) -> Path:
    try:
        place = Path(path)
    except TypeError as error:
        raise ModelError(f"a Jacobian lens is read from the path of a file; got {path!r:.100}.") from error
    if problem := unreadable(place):
        raise ModelError(f"{brief(str(place))} {problem} Fit one: fit_jacobians(mllm, corpus).save(path).")
    return place


def fit_jacobians(
    mllm: WrappedModel,
    corpus: Any = None,
    words: Sequence[str] = (),
    *,
    max_tokens: int = 128,
    show_progress: bool = True,
) -> Jacobians:
    """The Jacobians of a model on texts, fitted by TransformerLens (extra `lens`), whose estimator is the source's.

    For each prompt, J_ℓ = mean over positions t of Σ over t' ≥ t of ∂ h_last[t'] / ∂ h_ℓ[t], without the first 16
    positions and the last; then the mean over prompts. A prompt takes one forward pass and hidden / 8 backward passes
    over 8 copies of it, which is hidden times the cost of a backward pass over the text. The source says that about 100
    prompts of 128 tokens are enough; published lenses have 1000.

    Args:
        mllm: The model, of a family that TransformerLens knows, in float32 if possible.
        corpus: The texts, as `LatentLens` takes them; neighbouring texts are joined to prompts of `max_tokens` tokens.
        words: The words that replace "{word}" in the texts.
        max_tokens: The longest prompt in tokens; the rest is cut off. At least 18.
        show_progress: Whether to show a progress bar.

    Raises:
        ModelError: TransformerLens is not installed or does not know the family.
        PromptError: No texts, texts with fewer than 18 tokens in all, or `max_tokens` below 18.

    Source: Gurnee et al., Verbalizable Representations Form a Global Workspace in Language Models, Transformer Circuits
        2026.
    """
    need_weights_here(mllm, JacobianLens.kind)
    check_whole("max_tokens", max_tokens, SKIPPED + 2, PromptError)
    tokenizer = mllm.processor.tokenizer
    prompts = packed(tokenizer, filled(as_corpus(corpus), words), max_tokens)
    long = [text for text in prompts if len(tokenizer(text)["input_ids"]) >= SKIPPED + 2]
    if not long:
        raise PromptError(
            f"a Jacobian lens is fitted on prompts of {SKIPPED + 2} tokens or more, since their first {SKIPPED} are "
            "left out; all texts together have fewer. Give more or longer texts: corpus=[…]."
        )
    lens = make_lens(mllm)
    lens.bridge.to_tokens = lambda text: _ids(tokenizer, text).to(mllm.device)
    with progress_bar("Fitting the Jacobian lens", len(long), show=show_progress, noun="prompts") as advance:
        fitted = _fitted(lens.bridge, _Counted(long, advance), corpus_digest(long), max_tokens)
    model = mllm.identity["weights"]
    return Jacobians(fitted.jacobians, fitted.n_prompts, model, corpus_digest(long))


def _ids(tokenizer: Any, text: str) -> Int[Tensor, "one token"]:
    """A text's token ids as for every lens; TransformerLens would add a first special token or not by family."""
    return torch.tensor([tokenizer(text, truncation=False, padding=False)["input_ids"]])


def _fitted(bridge: Any, prompts: Sequence[str], corpus: str, max_tokens: int) -> Any:
    """TransformerLens' own fitted lens."""
    from transformer_lens.tools.analysis import JacobianLens as Fitted

    options: dict[str, Any] = {
        "max_seq_len": max_tokens,
        "skip_first_positions": SKIPPED,
        "dim_batch": DIMENSIONS,
    }
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="fitting in"
            )  # in half precision; our docstring names it
            return Fitted.fit(bridge, prompts, corpus=corpus, show_progress=False, **options)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"TransformerLens fits no Jacobian lens on this model ({brief(str(error))}). Use the logit lens, which "
            "takes every model that to_lens does."
        ) from error


class _Counted(Sequence):
    """A list that advances a progress bar each time its next element is taken."""

    def __init__(self, listed: Sequence[str], advance: Callable[[int], None]) -> None:
        self.listed, self.advance = listed, advance

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, index: Any) -> Any:
        return self.listed[index]

    def __iter__(self) -> Iterator[str]:
        for one in self.listed:
            yield one
            self.advance(1)


@dataclass(frozen=True)
class JacobianLens:
    """The log-probability of a word when the stream is carried to the last layer by its average Jacobian.

    lens_ℓ(h) = log softmax(unembedding(norm(J_ℓ h))), in nats, summed over the probabilities of each word's spellings.
    After the last layer, where J is the identity, it equals the logit lens. The input of the first layer ("layer −1")
    has no Jacobian and is not read. The lens needs the extra `lens` and a family that TransformerLens knows.

    Args:
        file: The path of a file that `fit_jacobians(mllm, corpus).save(path)` wrote, on the same weights. With None the
            lens is fitted when it is opened, which a study does in each process; that suits small models only.
        corpus: The texts to fit on where there is no file, as `LatentLens` takes them. The default templates are far
            too few for a good fit: give running text.
        max_tokens: The longest prompt in tokens where there is no file. At least 18.

    Raises:
        ModelError: A file that does not exist or holds no Jacobians.
        PromptError: A corpus without texts, a corpus together with a file, or `max_tokens` below 18.

    Source: Gurnee et al., Verbalizable Representations Form a Global Workspace in Language Models, Transformer Circuits
        2026; through `transformer_lens.tools.analysis.JacobianLens`.
    """

    file: Any = None
    corpus: Any = field(default=None, repr=False)
    max_tokens: int = 128
    digest: str = field(default="", init=False, repr=False)

    kind = "jacobian"

    def __post_init__(self) -> None:
        check_whole("max_tokens", self.max_tokens, SKIPPED + 2, PromptError)
        if self.file is not None:
            if self.corpus is not None:
                raise PromptError(
                    "a Jacobian lens is read from a file or fitted on a corpus; got both. Pass one of them."
                )
            load_jacobians(self.file)
            object.__setattr__(self, "file", str(self.file))
            object.__setattr__(self, "digest", file_checksum(Path(self.file)))
        else:
            object.__setattr__(self, "corpus", as_corpus(self.corpus))

    def open(self, mllm: WrappedModel, words: Sequence[str], meter: Meter) -> _OpenedJacobianLens:
        """The lens on a model, from its file or from a fit.

        Raises:
            ModelError: A file of another model, a file that was changed, or as in `fit_jacobians`.
            PromptError: As in `fit_jacobians`.
        """
        del meter  # TransformerLens runs its own passes
        need_weights_here(mllm, self.kind)
        if self.file is None:
            fitted = fit_jacobians(mllm, self.corpus, words, max_tokens=self.max_tokens)
        else:
            fitted = load_jacobians(self.file)
            if file_checksum(Path(self.file)) != self.digest:
                raise ModelError(
                    f"{self.file} is no longer the file that this lens was made of. Make the lens again: "
                    "JacobianLens(file)."
                )
            if fitted.model != mllm.identity["weights"]:
                raise ModelError(
                    f"{self.file} was fitted on other weights than this {mllm.family}'s. Fit it again: "
                    "fit_jacobians(mllm, corpus).save(path)."
                )
        return _OpenedJacobianLens(make_lens(mllm), fitted)

    def to_dict(self) -> dict[str, Any]:
        """The lens as JSON values: the file, or the corpus, by its hash."""
        if self.file is not None:
            return {self.kind: {"file_sha256": self.digest}}
        return {self.kind: {"corpus_sha256": corpus_digest(self.corpus), "max_tokens": self.max_tokens}}

    def __str__(self) -> str:
        return self.kind


class _OpenedJacobianLens:
    """A Jacobian lens on one model. An `OpenedLens`; the ids of its words are tokens."""

    unit = "log probability, nats"
    every = None

    def __init__(self, lens: Lens, fitted: Jacobians) -> None:
        self.lens = lens
        last = lens.mllm.n_layers - 1
        self.layers = (*sorted(fitted.matrices), last)
        self.matrices = {i: one.to(lens.mllm.device) for i, one in fitted.matrices.items()}
        self.text = token_text(lens.mllm.processor.tokenizer)

    def find(self, words: Sequence[str], top: int) -> list[Tensor]:
        """The tokens of the words.

        Raises:
            PromptError: A word that no single token spells, or `top` out of range.
        """
        tokenizer, head = self.lens.mllm.processor.tokenizer, self.lens.readout.head
        return spellings(tokenizer, int(head.weight.shape[0]), words, top)

    def at(
        self, layer: int, stream: Float[Tensor, "token hidden"], found: Sequence[Tensor], top: int
    ) -> WordScores:
        """Log-probabilities of the stream after its Jacobian."""
        matrix = self.matrices.get(layer)
        if matrix is not None:
            stream = (stream.float() @ matrix.to(stream.device).T).to(stream.dtype)
        return score_words(self.lens.readout.logits, stream, found, top)
