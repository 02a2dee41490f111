"""A multimodal LLM ready to be traced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError
from interp.facade import provided
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.tracing.edits import Edit
from interp.tracing.encoding.batch import Batch
from interp.tracing.execution import apart
from interp.tracing.executors.hooks import PATTERN, OfferedRows, offered_rows
from interp.tracing.lens.lens import Lens, make_lens
from interp.tracing.passes.decoding import Decoding
from interp.tracing.passes.micro_batches import BATCH_SIZE
from interp.tracing.passes.prefix_pass import given_as, make_prefix
from interp.tracing.passes.run import embeddings, image_features
from interp.tracing.prefix import Prefix, Prefixes, Stop
from interp.tracing.reads import Read
from interp.tracing.reasoning import reasoned
from interp.tracing.site import Layers, Selector, Site
from interp.tracing.target import Scores, score
from interp.tracing.trace import RemoteJob, Submitted, Trace, answers, trace
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["Mllm"]


class Mllm(WrappedModel):
    """A multimodal LLM with its processor and its family's adapter. Made by `interp.load` or `interp.wrap`.

    Its attributes are those of `WrappedModel`: `hf`, `processor`, `adapter`, `installation`, `executor`, `prefixes`.
    """

    def using(self, executor: Literal["tap", "source"]) -> Mllm:
        """The same model with the given executor. The model's prefixes work with both executors.

        Args:
            executor: "tap" or "source"; see `WrappedModel`.

        Raises:
            ModelError: An unknown executor.
        """
        if not isinstance(executor, str) or executor not in ("tap", "source"):
            raise ModelError(f'the executors are "tap" and "source"; got {executor!r}.')
        if executor == "tap" and self.server is not None:
            raise ModelError(
                'a model on an NDIF server has only the executor "source", because its modules on the server cannot be '
                'changed; got "tap". Load the model without remote=True to use "tap".'
            )
        return replace(self, executor=executor)

    def sharing(self, prefixes: Prefixes | None) -> Mllm:
        """The same model, whose traces of samples continue from an image prefix wherever that is exact.

        It is exact if the image comes before the question and no row up to the last image token sees a later token, is
        read or is edited (see `Prefix`). Such a trace equals a whole pass to about 1e-5. A trace that finds its prefix
        and a trace that makes it give the same bits; only their costs differ.

        Args:
            prefixes: the store of prefixes; None to use none.

        Raises:
            ModelError: Something that is not `Prefixes`.
        """
        if prefixes is not None and not isinstance(prefixes, Prefixes):
            raise ModelError(
                f"sharing takes an interp.tracing.Prefixes, or None for no prefixes; got {type(prefixes).__name__}."
            )
        if self.server is not None:  # the server keeps nothing between jobs: each job runs whole prompts
            return self
        found = copy(self)  # a copy keeps cached properties, such as the layers
        object.__setattr__(found, "prefixes", prefixes)
        return found

    def trace(
        self,
        samples: Sample | Iterable[Sample] | Batch | Prefix,
        prompt: Prompt | None = None,
        reads: Sequence[Read] = (),
        edits: Sequence[Edit] = (),
        generate: int = 0,
        seed: int | None = None,
        decoding: Decoding = Decoding(),  # noqa: B008 - frozen
        *,
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> Trace:
        """Runs the samples in micro-batches and applies the reads and edits; gradients are off.

        A sample's results do not depend on the other samples. They come in the order of the samples. Samples with the
        same images run together, then samples of similar length. A micro-batch that does not fit in memory runs in
        halves.

        Args:
            samples: samples, an encoded batch, or a prefix; each is cut into micro-batches. With a prefix, only the
                tokens after it run, where that is exact (see `Prefix`).
            prompt: how the question is asked; by default `PAPER_PROMPT`, or the prompt of the batch or prefix.
            reads: what to read.
            edits: what to change; they apply in the order given.
            generate: the largest number of tokens to generate. If it is 1 or more, rows have a first dimension "step".
                Step 0 is the prompt. Reads of queries "last" also have a row for every generated token that is fed
                back. Reads of queries "answer" have only rows of generated tokens: for a model that thinks, those from
                the first token after the thought on. Reads of queries "reasoning" have only the rows of the thought.
                Of the checkpoint's `generation_config` only the end tokens are used.
            seed: seed of torch's generators during the run, and of the tokens that are sampled.
            decoding: how each token is chosen; by default the most likely one.
            batch_size: the largest number of samples in one pass. Larger batches take more memory and less time per
                sample; results differ by rounding (about 1e-6).
            progress: whether a terminal or notebook shows a progress bar with the remaining time; it does so only if
                there are several micro-batches.

        Raises:
            SiteError: A layer, head, group or position that does not exist, or a read of nothing.
            EditError: Edits out of order, values that do not fit, or a row left without keys.
            PromptError: Tokens sampled without a seed.
            ModelError: Another trace or tap of this model is open, or it was unwrapped; a `batch_size` below 1; a
                sample that does not fit in memory even alone.
            SampleError, PromptError, ImageTokenMismatch: as in `encode`.
        """
        return trace(self, samples, prompt, reads, edits, generate, seed, decoding, batch_size, progress)

    def answers(
        self,
        samples: Sample | Iterable[Sample] | Batch | Prefix,
        prompt: Prompt | None = None,
        edits: Sequence[Edit] = (),
        generate: int = 16,
        seed: int | None = None,
        decoding: Decoding = Decoding(),  # noqa: B008 - frozen
        *,
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> list[str | None]:
        """The generated texts, in the order of the samples: `trace(…).answers`, but without storing the logits.

        The thought of a model that thinks is not part of its answer. An answer is None where the thought took all
        tokens, so that no answer followed.

        Args:
            generate: the largest number of tokens to generate, 1 or more.
            samples, prompt, edits, seed, decoding, batch_size, progress: as in `trace`.

        Raises:
            PromptError: A `generate` below 1, or tokens sampled without a seed.
            SampleError, EditError, SiteError, ModelError: as in `trace`.
        """
        return answers(self, samples, prompt, edits, generate, seed, decoding, batch_size, progress)

    def reasoned(
        self,
        samples: Sample | Iterable[Sample] | Batch,
        thoughts: Sequence[str],
        prompt: Prompt | None = None,
    ) -> Batch:
        """The samples with a given thought, between its marks, after each prompt; the answer comes next.

        Functions that accept samples accept this batch: traces, scores and indicators then concern the answer after
        this thought. The tokens of the thought are the group "reasoning". The tokens from its sentence k on (0-based)
        are the group "from sentence k"; those from the mark that ends it on are the group "from the end".

        Args:
            samples: samples or a batch.
            thoughts: one text for each sample, without marks.
            prompt: as in `trace`; it must allow a thought after it.

        Raises:
            PromptError: A model without marks of a thought, a prompt that closes the thought, a number of texts other
                than the number of samples, or marks in a text.
            ModelError: A model whose prompt rows see the whole prompt.
            SampleError, PromptError, ImageTokenMismatch: as in `encode`.
        """
        return reasoned(self, given_as(self, samples, prompt), thoughts)

    def submit(
        self,
        samples: Sample | Iterable[Sample] | Batch,
        prompt: Prompt | None = None,
        reads: Sequence[Read] = (),
        edits: Sequence[Edit] = (),
        generate: int = 0,
        seed: int | None = None,
        decoding: Decoding = Decoding(),  # noqa: B008 - frozen
    ) -> RemoteJob:
        """Sends a trace to the NDIF server and returns at once; `RemoteJob.collect`, or `collect`, gives the `Trace`.

        Args:
            samples, prompt, reads, edits, generate, seed, decoding: as in `trace`.

        Raises:
            ModelError: The model runs on this machine, or the samples need several passes.
            ServerError: The server cannot be reached or refuses the job.
            SiteError, EditError, SampleError, PromptError, ImageTokenMismatch: as in `trace`.
        """
        self._need_server("submit")
        batch = given_as(self, samples, prompt)
        assert isinstance(batch, Batch)
        given = (batch, prompt, reads, edits, generate, seed, decoding)
        if apart(self, batch, prompt, reads, edits) is not None:
            raise ModelError(
                "submit sends one job, which runs one pass; these samples need several passes, because their lengths "
                "or images differ too much. Submit each sample as a job of its own."
            )
        try:
            trace(replace(self, server=self.server.leaving(), batches=False), *given)
            raise AssertionError
        except Submitted as sent:
            job = sent.job
        return RemoteJob(
            job, lambda: self.server.state(job), lambda timeout: self.collect(job, *given, timeout=timeout)
        )

    def collect(
        self,
        job: str,
        samples: Sample | Iterable[Sample] | Batch,
        prompt: Prompt | None = None,
        reads: Sequence[Read] = (),
        edits: Sequence[Edit] = (),
        generate: int = 0,
        seed: int | None = None,
        decoding: Decoding = Decoding(),  # noqa: B008 - frozen
        *,
        timeout: float | None = None,
    ) -> Trace:
        """Waits for a job, submitted in this process or another, and returns its trace.

        Args:
            job: the job's id, `RemoteJob.id`.
            samples, prompt, reads, edits, generate, seed, decoding: the arguments that the job was submitted with. The
                trace is labelled from them.
            timeout: how many seconds to wait; None to wait until the job ends.

        Raises:
            ModelError: The model runs on this machine, or the job was submitted with other arguments.
            ServerError: The job failed, it did not end in time, or the server does not answer.
        """
        self._need_server("collect")
        if not isinstance(job, str) or not job:
            raise ModelError(f"a job is named by its id, as RemoteJob.id gives it; got {job!r:.100}.")
        fetching = replace(self, server=self.server.fetching(job, timeout), batches=False)
        return trace(fetching, samples, prompt, reads, edits, generate, seed, decoding)

    def _need_server(self, what: str) -> None:
        if self.server is None:
            raise ModelError(
                f"{what} is for a model on an NDIF server, interp.load(id, remote=True); this one is on this machine. "
                "Use mllm.trace."
            )

    def image_features(self, batch: Batch) -> list[Float[Tensor, "token hidden"]]:
        """The features of each sample's image tokens, in the order of `tokens.image`; the decoder does not run.

        These are what the language model gets for the image: `embeddings` at image positions, or, where the image is
        not part of the sequence, the vectors that cross-attention layers project to keys and values. Where image tokens
        are latents of a resampler, they are the features of the patches that the resampler gets, in the order of a
        composed map.

        Raises:
            ModelError: As in `embeddings`.
        """
        if not isinstance(batch, Batch):
            raise ModelError(
                f"image_features takes an encoded batch, mllm.encode(samples); got {type(batch).__name__}."
            )
        if self.maps != "self":
            return image_features(self, batch)
        entering = self.embeddings(batch)
        at = [torch.from_numpy(one.image + pad) for one, pad in zip(batch.tokens, batch.pad, strict=True)]
        return [own[columns.to(own.device)] for own, columns in zip(entering, at, strict=True)]

    def embeddings(self, batch: Batch) -> Float[Tensor, "sample position hidden"]:
        """The input of the first decoder layer, at the batch's padded positions; the decoder does not run.

        At image positions these are the image's features as the language model gets them.

        Raises:
            ModelError: Something that is not a batch; another trace or tap of this model is open, or it was unwrapped.
        """
        if not isinstance(batch, Batch):
            raise ModelError(
                f"embeddings takes an encoded batch, mllm.encode(samples); got {type(batch).__name__}."
            )
        return embeddings(self, batch)

    def look(
        self,
        image: Any,
        question: str = "",
        *,
        boxes: Iterable[Any] | None = None,
        box_format: str | None = None,
        indicator: Any = None,
        layer: int | Literal["auto"] = "auto",
        prompt: Prompt | None = None,
        target: Target = Target("greedy"),  # noqa: B008 - frozen
        generate: int = 16,
        trust: Literal["quick", "full"] = "quick",
        seed: int = 0,
    ) -> Any:
        """Where the model looks when it answers one question on one image: an `interp.Look`, which a notebook displays.

            look = mllm.look("scan.png", "Is there a nodule?", boxes=[(120, 80, 180, 150)])
            look.save("look.html")

        See `interp.look` for the arguments, the cost and the errors.
        """
        how: dict[str, Any] = {"prompt": prompt, "target": target, "generate": generate, "trust": trust}
        how["box_format"] = box_format
        return provided("look")(
            self, image, question, boxes=boxes, indicator=indicator, layer=layer, seed=seed, **how
        )

    def score(
        self,
        samples: Sample | Iterable[Sample] | Batch | Prefix,
        target: Target = Target("greedy"),  # noqa: B008 - frozen
        *,
        prompt: Prompt | None = None,
        edits: Sequence[Edit] = (),
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> Scores:
        """The target's log-probability after each prompt, with the edits applied.

        An answer of several tokens is fed token by token, as in generation, so edits with steps="decode" or "all" apply
        to its rows. The target "greedy" is the answer of the model without edits.

        Args:
            samples: samples, an encoded batch, or a prefix.
            target: the answer, or the two answers to compare.
            prompt, edits, batch_size, progress: as in `trace`.

        Raises:
            SampleError, PromptError, SiteError, EditError, ModelError: as in `trace`.
        """
        return score(self, samples, target, prompt, edits, batch_size, progress)

    def prefix(
        self,
        samples: Sample | Iterable[Sample] | Batch,
        prompt: Prompt | None = None,
        stop: Stop = "image",
    ) -> Prefix:
        """Runs each prompt up to its last image token and returns the keys and values for later passes.

        Functions that accept samples accept the prefix. With stop="last" it holds each prompt without its last token: a
        pass that reads or edits only the last row then runs one token per prompt. For a model on an NDIF server the
        prefix is empty, and every pass runs whole prompts.

        Args:
            samples: samples or an encoded batch.
            prompt: as in `trace`.
            stop: "image" or "last", where the prefix ends.

        Raises:
            ModelError: A sample without image tokens; an unknown `stop`; another trace or tap of this model is
                open.
            SampleError, PromptError, ImageTokenMismatch: as in `encode`.
        """
        return make_prefix(self, samples, prompt, stop)

    @contextmanager
    def tap(
        self,
        queries: Selector | Sequence[Selector] = "last",
        *,
        layers: Layers = "all",
        batch: Batch | None = None,
    ) -> Iterator[None]:
        """Makes rows of attention available to nnsight, for the block.

            with mllm.tap(queries="last"), mllm.nn.trace(**batch.inputs):
                rows = mllm.layers[14].self_attn.pattern.output.save()

        Cross-attention layers have their rows at `.cross_attn.pattern.output`. Rows are float32 (sample, head, query,
        key), over padded keys. Writing to them, in place or by assignment, edits the attention's output.

        Args:
            queries: the rows; "last" is the last row of every pass.
            layers: the layers whose rows are available; they must have a softmax.
            batch: the batch that is traced; needed for queries other than "last" and "all".

        Raises:
            SiteError: Layers that the model does not have or that have no softmax, queries that need a batch, or
                different numbers of queries in the samples.
            ModelError: Another trace or tap of this model is open, or it was unwrapped.
        """
        self.installation.need_weights()
        rows = offered_rows(queries, batch)
        attentions = self.installation.attentions
        chosen = self.decoder.softmax(Site(layers=layers), "mllm.tap")
        offering = {i: OfferedRows(attentions[i].get_submodule(PATTERN), rows) for i in chosen}
        with self.installation.armed(offering):
            yield

    def to_lens(self) -> Lens:
        """The model in TransformerLens: caches, logit lens, direct attribution (extra `lens`).

        It is a second model with the same weights and eager attention. This model is not changed and can still be
        traced. Nothing is downloaded or installed.

        Raises:
            ModelError: transformer-lens is not installed or has no adapter for this family (see
                `interp.tracing.lens.SUPPORTED`), the model is on several devices, or it was unwrapped.
        """
        self.installation.need_weights()
        return make_lens(self)

    def unwrap(self) -> Any:
        """The transformers model as it was before `wrap`: attention implementation, modules, config, mode.

        This `Mllm`, its prefixes and its nnsight model cannot be used afterwards.

        Raises:
            ModelError: A trace or tap is open, or it was unwrapped already.
        """
        return self.installation.remove()
