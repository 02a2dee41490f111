"""Models that only answer: answers and scores come from `generate`, and everything else is refused with the reason.

Such a model is not changed. Samples run one by one, since the processors of these families pad in different ways.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from interp.errors import EditError, InterpError, ModelError, PromptError, SampleError
from interp.inputs.prompt import PAPER_PROMPT, Prompt, Target
from interp.inputs.sample import Sample
from interp.models.refusals import AnswersOnly
from interp.tracing.cost import Meter
from interp.tracing.edits import Edit, check_edits
from interp.tracing.encoding.batch import ProcessedImages
from interp.tracing.encoding.rendering import plain_text
from interp.tracing.execution import check_arguments, check_decoding, ends
from interp.tracing.executors.hooks import Installation, as_written
from interp.tracing.model import Mllm
from interp.tracing.passes.decoding import Decoding, Draw
from interp.tracing.passes.micro_batches import BATCH_SIZE, MicroBatch, in_batches, in_order
from interp.tracing.passes.run import without_choice
from interp.tracing.target import (
    Aims,
    Scores,
    aim_of,
    answer_ids,
    check_target,
    joined_scores,
    log_probabilities,
    texts_of,
)

__all__ = ["AnsweringMllm", "Untapped"]


class Untapped(Installation):
    """The installation of a model that only answers: nothing is wrapped, and no work can be armed."""

    def __init__(self, hf: Any, adapter: AnswersOnly, given: Any | None = None) -> None:
        self.hf = hf
        self.given = hf if given is None else given
        self.adapter = adapter
        self.forwards = {m: m.__dict__["forward"] for m in hf.modules() if "forward" in m.__dict__}
        self.processed = ProcessedImages()
        self.known = None
        self.active = True
        self._training = {module: module.training for module in hf.modules()}
        self._lock = threading.Lock()
        hf.eval()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.__dict__["adapter"].refuse()

    @property
    def implementation(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The attention implementation in the config of the text model; "" where it names none."""
        config = self.hf.config.get_text_config(decoder=True)
        return str(getattr(config, "_attn_implementation", None) or "")

    def need_weights(self) -> None:
        """Refuses work on the modules themselves."""
        self.adapter.refuse("taps and TransformerLens")

    @contextmanager
    def armed(
        self, work: Any = None, streams: Any = None, routing: Any = None, mlps: Any = None
    ) -> Iterator[None]:
        """Evaluation mode for the block; work is refused."""
        self.check()
        if work or streams or routing or mlps:
            self.adapter.refuse("reads and edits")
        with self._alone(), as_written(self.hf):
            yield

    def remove(self) -> Any:
        """The model that was given, in the mode it had."""
        self.check()
        with self._alone():
            for module, training in self._training.items():
                module.training = training
            self.active = False
        return self.given


class AnsweringMllm(Mllm):
    """A model with `answers`, `score`, `unwrap` and its identity only; everything else raises `ModelError`.

    Made by `interp.load(…, adapter="answers_only")` or `interp.wrap`. Decoder-only models and encoder-decoders both run
    in transformers' `generate`: greedy or drawn, never with beams. Of the checkpoint's `generation_config` only the
    start and end tokens are used.
    """

    adapter: AnswersOnly  # pyright: ignore[reportIncompatibleVariableOverride]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.hf).__name__}, answers only, {self.dtype}, {self.device})"

    @property
    def layer_devices(self) -> tuple[torch.device, ...]:
        """The device of the model; its layers are not located."""
        return (self.device,)

    @property
    def n_layers(self) -> int:
        """The number of decoder layers."""
        config = self._text_config
        found = getattr(config, "num_hidden_layers", None)
        return int(getattr(config, "decoder_layers", 0) if found is None else found)

    def answers(
        self,
        samples: Any,
        prompt: Prompt | None = None,
        edits: Sequence[Edit] = (),
        generate: int = 16,
        seed: int | None = None,
        decoding: Decoding = Decoding(),  # noqa: B008 - frozen
        *,
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> list[str | None]:
        """The generated texts, in the order of the samples; see `Mllm.answers`.

        Raises:
            PromptError: No token to generate, or tokens drawn without a seed.
            EditError: Any edits.
            ModelError: Guidance by a contrast, or a model that fails.
            SampleError: No samples, or one that the processor refuses.
        """
        check_arguments((), edits, generate)
        check_decoding(decoding, seed)
        self._refuse_edits(edits)
        if not generate:
            raise PromptError("an answer has at least one token; got generate=0. Write generate=1 or more.")
        if decoding.contrast is not None:
            self.adapter.refuse("Decoding(contrast=…), which runs the prompt without its image tokens,")
        last = ends(self)

        def said(_: Any, some: MicroBatch) -> list[str | None]:
            sample = _only_sample(some)
            draw = Draw(decoding, seed, [sample.id])
            ids, _ = self._run(sample, prompt or PAPER_PROMPT, draw, generate, last)
            return [self.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()]

        return in_order(
            in_batches(self, _samples(samples), said, batch_size=batch_size, progress=progress, alone=True)
        )

    def score(
        self,
        samples: Any,
        target: Target = Target("greedy"),  # noqa: B008 - frozen
        *,
        prompt: Prompt | None = None,
        edits: Sequence[Edit] = (),
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> Scores:
        """The target's log-probability after each prompt; see `Mllm.score`.

        An answer of several tokens is fed token by token through `generate`. An encoder-decoder's answer is tokenised
        alone, since its decoder does not read the prompt.

        Raises:
            PromptError: Not a target, an answer without tokens or outside the vocabulary, or two answers of the same
                tokens.
            EditError, ModelError, SampleError: As in `answers`.
        """
        check_edits(edits)
        check_target(target)
        self._refuse_edits(edits)

        def scored(_: Any, some: MicroBatch) -> Scores:
            return self._score(_only_sample(some), prompt or PAPER_PROMPT, target)

        return joined_scores(
            in_batches(self, _samples(samples), scored, batch_size=batch_size, progress=progress, alone=True)
        )

    def _score(self, sample: Sample, prompt: Prompt, target: Target) -> Scores:
        with Meter(self.device) as finding:
            if target.spec == "greedy":
                found = (self._greedy(sample, prompt, target.tokens),)
            else:
                text = "" if self._is_encoder_decoder else self._text(sample, prompt)
                found = tuple(answer_ids(self.processor, text, one) for one in texts_of(target))
        aim = aim_of(target, found, sample)
        with Meter(self.device) as meter:
            parts = []
            for ids, weight in zip(aim.answers, aim.weights, strict=True):
                _, logits = self._run(sample, prompt, _Forced(ids), len(ids), frozenset())
                parts.append(weight * float(log_probabilities(logits, ids)))
        return Scores(np.array([sum(parts)]), Aims((aim,), finding.cost), finding.cost + meter.cost)

    def _greedy(self, sample: Sample, prompt: Prompt, n: int) -> tuple[int, ...]:
        """The first tokens of the answer, without its end token unless that is the first."""
        last = ends(self)
        ids, _ = self._run(sample, prompt, lambda logits: logits.argmax(dim=-1), n, last)
        whole = ids[:-1] if len(ids) > 1 and ids[-1] in last else ids
        return tuple(whole)

    def _run(
        self,
        sample: Sample,
        prompt: Prompt,
        choose: Callable[[Float[Tensor, "sample token_id"]], Int[Tensor, " sample"]],
        n: int,
        last: frozenset[int],
    ) -> tuple[list[int], Float[Tensor, "step token_id"]]:
        """At most `n` tokens that `choose` takes, up to one of `last`, and the logits that they were chosen from."""
        inputs = self._inputs(sample, prompt)
        chosen = _Chosen(choose, last, sample)
        with self.installation.armed({}), _without_settings(self.hf, n), torch.no_grad():
            try:
                self.hf.generate(**inputs, max_new_tokens=n, logits_processor=LogitsProcessorList([chosen]))
            except _AnswerCompleteError:
                pass
            except (TypeError, ValueError, RuntimeError, IndexError) as error:
                if isinstance(error, InterpError) or "out of memory" in str(error):
                    raise
                raise ModelError(
                    f"{type(self.hf).__name__}.generate fails on sample {sample.id} ({type(error).__name__}: {error}). "
                    "It is given what the processor returns. Does the processor belong to this model?"
                ) from error
        return chosen.ids, torch.cat(chosen.logits)

    def _text(self, sample: Sample, prompt: Prompt) -> str:
        return plain_text(sample, prompt, self.processor, self.adapter)  # pyright: ignore[reportArgumentType]

    def _inputs(self, sample: Sample, prompt: Prompt) -> dict[str, Tensor]:
        """The tensors that the processor makes of a sample, on the model's device and in its dtype."""
        self.installation.check()
        sample.check_units()
        text = self._text(sample, prompt)
        bos = getattr(self.processor.tokenizer, "bos_token", None)
        options = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
        images = [sample.load(i) for i in range(len(sample.images))]
        try:
            found = self.processor(
                text=[text], images=[images] if images else None, return_tensors="pt", **options
            )
        except (TypeError, ValueError, IndexError) as error:
            raise SampleError(
                f"the processor refuses sample {sample.id} ({error}). Its images are "
                f"{', '.join(f'{width}×{height}' for width, height in sample.sizes)} (width×height)."
            ) from error
        tensors = {k: v for k, v in found.items() if isinstance(v, Tensor) and k != "labels"}
        return {
            k: v.to(device=self.device, dtype=self.dtype if v.is_floating_point() else v.dtype)
            for k, v in tensors.items()
        }

    @property
    def _is_encoder_decoder(self) -> bool:
        return bool(getattr(self.hf.config, "is_encoder_decoder", False)) or bool(
            getattr(self._text_config, "is_encoder_decoder", False)
        )

    def _refuse_edits(self, edits: Sequence[Edit]) -> None:
        if edits:
            raise EditError(
                f"this model was opened with adapter={self.family!r} and takes no edits: leave edits= out. "
                f"{self.adapter.why}"
            )

    def sharing(self, prefixes: Any) -> Mllm:
        """The same model: it keeps no image prefixes."""
        return self

    def using(self, executor: Any) -> NoReturn:
        """Refused: nothing runs inside the model."""
        self.adapter.refuse("executors")

    @property
    def encoder(self) -> NoReturn:
        """Refused: the positions of its tokens are not known."""
        self.adapter.refuse("traces, prefixes and encoded batches")

    @property
    def visibility(self) -> NoReturn:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Refused: what its rows see is not known."""
        self.adapter.refuse("what rows see")

    def trace(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: use `answers`."""
        self.adapter.refuse("traces")

    def embeddings(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: no position of the sequence stands for a place in the image."""
        self.adapter.refuse("embeddings of image tokens")

    def submit(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: the model runs on this machine and only answers."""
        self.adapter.refuse("jobs on a server")

    def collect(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: the model runs on this machine and only answers."""
        self.adapter.refuse("jobs on a server")


class _AnswerCompleteError(Exception):
    """Raised to end `generate` once the end token of the answer was chosen."""


class _Chosen(LogitsProcessor):
    """Makes `generate` continue with the tokens that a function chooses, and keeps the logits it chose from."""

    def __init__(
        self, choose: Callable[[Tensor], Int[Tensor, " sample"]], last: frozenset[int], sample: Sample
    ) -> None:
        self.choose, self.last, self.sample = choose, last, sample
        self.ids: list[int] = []
        self.logits: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores that allow only the chosen token."""
        logits = scores.float()
        if bool(without_choice(logits).any()):
            raise ModelError(
                f"the logits of sample {self.sample.id} are not numbers (NaN). Try dtype='float32'."
            )
        token = self.choose(logits)
        self.logits.append(logits)
        self.ids.append(int(token[0]))
        if self.ids[-1] in self.last:
            raise _AnswerCompleteError
        return torch.full_like(scores, -torch.inf).scatter(1, token[:, None], 0.0)


class _Forced:
    """Chooses the tokens of a given answer."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._left = list(ids)

    def __call__(self, logits: Float[Tensor, "sample token_id"]) -> Int[Tensor, " sample"]:
        """The next token."""
        return torch.tensor([self._left.pop(0)], device=logits.device)


@contextmanager
def _without_settings(hf: nn.Module, n: int) -> Iterator[None]:
    """In the block, only start and padding tokens of `generation_config` apply, in every part of the model."""
    owners: list[Any] = [
        m for m in hf.modules() if isinstance(m.__dict__.get("generation_config"), GenerationConfig)
    ]
    before = [owner.generation_config for owner in owners]
    for owner, old in zip(owners, before, strict=True):
        kept = {name: getattr(old, name, None) for name in _KEPT}
        owner.generation_config = GenerationConfig(**kept, max_new_tokens=n, do_sample=False, num_beams=1)
    try:
        yield
    finally:
        for owner, old in zip(owners, before, strict=True):
            owner.generation_config = old


_KEPT = ("bos_token_id", "pad_token_id", "decoder_start_token_id")
"""The settings of `generation_config` that are kept."""


def _samples(samples: Any) -> Any:
    """The samples, unless they are an encoded batch or a prefix, which only another model can make.

    Raises:
        SampleError: A batch, a prefix, or something other than samples.
    """
    if (
        not isinstance(samples, Sample | Iterable)
        or isinstance(samples, Mapping)
        or hasattr(samples, "tokens")
    ):
        raise SampleError(
            f"a model that only answers takes samples, not an encoded batch or a prefix; got {type(samples).__name__}."
        )
    return samples


def _only_sample(some: MicroBatch) -> Sample:
    given: Any = some.samples
    return given[0]
