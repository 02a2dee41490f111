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
        """The same model under the other executor. Prefixes serve both.

        Raises:
            ModelError: An unknown executor.
        """
        if not isinstance(executor, str) or executor not in ("tap", "source"):
            raise ModelError(f'the executors are "tap" and "source"; got {executor!r}.')
        if executor == "tap" and self.server is not None:
            raise ModelError(
                'a model on an NDIF server has the executor "source" alone: nothing can be put into its modules there. '
                "Load the model without remote=True for the other."
            )
        return replace(self, executor=executor)

    def sharing(self, prefixes: Prefixes | None) -> Mllm:
        """The same model, whose traces of samples go on from an image prefix wherever that is exact.

        That is: the image comes before the question, no row up to the last image token sees what follows it, and
        none is read or edited (see `Prefix`). Such a trace equals the whole pass to about 1e-5; a trace that
        found its prefix and one that made it are equal to the last bit, but for the cost.
        """
        if prefixes is not None and not isinstance(prefixes, Prefixes):
            raise ModelError(f"sharing takes Prefixes, or None for none; got {type(prefixes).__name__}.")
        if self.server is not None:  # nothing is kept there between jobs: each runs whole prompts
            return self
        found = copy(self)  # with what is cached, such as the fingerprint
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
        """Runs the samples in micro-batches, reading and editing on the way; gradients are off.

        A sample's results do not depend on the rest of its batch. They come in the order given. Samples of the same
        images, then those of like length, run together. A micro-batch that does not fit in memory is run in halves.

        Args:
            samples: samples, an encoded batch, or a prefix; each is cut into micro-batches. After a prefix only what
                follows the image runs, where that is exact (see `Prefix`).
            prompt: how the question is put; by default `PAPER_PROMPT`, or that of the batch or prefix.
            reads: what to read.
            edits: what to change, in order.
            generate: how many tokens to generate at most. Rows then have a first dimension "step": 0 is the
                prompt, and reads of queries "last" go on with a row for every further token; reads of queries
                "answer" have these alone, from the first token after the thought of a model that thinks, and
                "reasoning" has those of the thought. The settings of the checkpoint's `generation_config` are not used,
                but for its end tokens.
            seed: of torch's generators during the run, and of the tokens drawn.
            decoding: how each token is chosen; by default the most likely one.
            batch_size: samples in one pass at most. More of them take more memory and less time each; results differ by
                rounding (about 1e-6).
            progress: whether a terminal or notebook shows a bar, with the time left, where there are several
                micro-batches.

        Raises:
            SiteError: A layer, head, group or position that is not there, or a read of nothing.
            EditError: Edits out of order, values that do not fit, or a row left without keys.
            PromptError: Tokens drawn without a seed.
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
        """The generated texts alone, in the order of the samples: `trace(…).answers` without keeping the logits.

        The thought of a model that thinks is no part of its answer; None is an answer that did not come, because the
        thought took all tokens.

        Args:
            generate: how many tokens to generate at most, one or more.
            samples, prompt, edits, seed, decoding, batch_size, progress: as in `trace`.

        Raises:
            PromptError: No token to generate, or tokens drawn without a seed.
            SampleError, EditError, SiteError, ModelError: as in `trace`.
        """
        return answers(self, samples, prompt, edits, generate, seed, decoding, batch_size, progress)

    def reasoned(
        self,
        samples: Sample | Iterable[Sample] | Batch,
        thoughts: Sequence[str],
        prompt: Prompt | None = None,
    ) -> Batch:
        """The samples with a given thought behind each prompt, its marks around it: what follows is the answer.

        It goes wherever samples do: traces, scores and indicators are then of the answer after this thought. The
        tokens of the thought are the group "reasoning"; those from its sentence k on (0-based) are "from sentence k",
        those from the mark that ends it on "from the end".

        Args:
            samples: samples or a batch.
            thoughts: one text for each, without marks.
            prompt: as in `trace`; one that a thought may follow.

        Raises:
            PromptError: A model without marks of a thought, a prompt that closes it, not one text per sample, or marks
                in a text.
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
                "these samples need several passes, so they are several jobs. Submit those of one length together."
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
        """The trace that a job gives, submitted in this process or another, once it is done.

        Args:
            job: its id, `RemoteJob.id`.
            samples, prompt, reads, edits, generate, seed, decoding: those it was submitted with, by which its numbers
                are labelled.
            timeout: how many seconds to wait; None for as long as it takes.

        Raises:
            ModelError: The model runs on this machine, or the job was submitted with something else.
            ServerError: The job failed, it is not done in time, or the server does not answer.
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
        """The features of each sample's image tokens, in the order of `tokens.image`; the decoder is not run.

        What the language model is given in their place: `embeddings` at image positions, or, where the image is no part
        of the sequence, what cross-attention layers project to keys and values. Where image tokens are latents of a
        resampler: the features of the patches that it is given, in the order of a composed map.

        Raises:
            ModelError: As `embeddings`.
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
        """What enters the first decoder layer, at the batch's padded positions; the decoder is not run.

        At image positions these are the image's features as the language model receives them.

        Raises:
            ModelError: Not a batch; another trace or tap of this model is open, or it was unwrapped.
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
        """Where the model looks when it answers one question on one image: an `interp.Look`, which shows itself.

            look = mllm.look("scan.png", "Is there a nodule?", boxes=[(120, 80, 180, 150)])
            look.save("look.html")

        The arguments, what it costs and its errors are those of `interp.look`.
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
        """The target's log-probability after each prompt, under the edits.

        An answer of several tokens is fed token by token, as if it were generated, so that edits of
        steps="decode" and "all" apply to its rows. "greedy" is what the unedited model answers.

        Samples run in micro-batches of `batch_size` with `progress`, as in `trace`.

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
        """Everything up to each sample's last image token, run once; accepted wherever samples are.

        With stop="last" everything but the last token of each prompt: what reads or edits of the last row alone
        go on from, at the cost of one token. Of a model on an NDIF server it is empty, and serves nothing.

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
        """Offers rows to nnsight: layers offer their rows at `mllm.layers[i].self_attn.pattern.output`, and
        cross-attention layers theirs at `.cross_attn.pattern.output`.

            with mllm.tap(queries="last"), mllm.nn.trace(**batch.inputs):
                rows = mllm.layers[14].self_attn.pattern.output.save()

        Rows are float32 (sample, head, query, key), over padded keys. Writing to them, in place or by
        assignment, edits the attention's output.

        Args:
            queries: rows to offer; "last" is the last row of every pass.
            layers: which layers offer them, of those with a softmax.
            batch: the batch that is traced; needed for queries other than "last" and "all".

        Raises:
            SiteError: Layers that are not there, queries that need a batch, or that differ in number.
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
        """The model through TransformerLens: caches, logit lens, direct attribution (extra `lens`).

        It is a second instance on the same weights, in eager attention; this model stays as it is and can be
        traced meanwhile. Nothing is downloaded or installed.

        Raises:
            ModelError: transformer-lens is not installed or has no adapter for this family (see
                `interp.tracing.lens.SUPPORTED`), the model is on several devices, or it was unwrapped.
        """
        self.installation.need_weights()
        return make_lens(self)

    def unwrap(self) -> Any:
        """The transformers model as it was before `wrap`: attention implementation, modules, config, mode.

        This `Mllm`, its prefixes and its nnsight model are of no use afterwards.

        Raises:
            ModelError: A trace or tap is open, or it was unwrapped already.
        """
        return self.installation.remove()
