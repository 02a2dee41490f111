"""When the image stops mattering to a model that reasons before it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.study.reasoning_sweep.task import ReasoningTask
from interp.study.result import GridResult
from interp.study.runs import GridCell
from interp.study.study import Study, field, one_of, whole_number

__all__ = ["ReasoningSweep"]


class ReasoningSweep(Study[GridResult]):
    """The image hidden from each sentence of a thought on: is the model's own answer still as likely?

        interp.ReasoningSweep(data=samples, model="Qwen/Qwen3-VL-4B-Thinking").run().report("reasoning.html")

    For each sample the model reasons and answers. Then the thought and the answer are forced (teacher forcing), and
    for each k the rows of sentence k, of all later sentences and of the answer cannot attend to any image token; rows
    before sentence k see the image as ever. Last, only the mark that ends the thought and the answer are blind.

    The result's `scores` have columns seen (the share of the sentences that see the image, from 0 to 1 in tenths: the
    nearest sentence's value), measure, value. Measures, in nats: "logprob" (Σ_t log p of the answer's tokens) and
    "change" (that minus the log-probability with the image seen throughout; below 0 where the image mattered).
    `result.samples` has the thought, the answer and `until`: the share of the sentences after which hiding the image
    changes the log-probability by less than 0.1 nats, there and everywhere later. Every sentence's own numbers:
    `result.cells[i].frame("sentences")`.

    What a sentence says may carry what an earlier row saw: no change shows that the image is not looked at again, not
    that it was never needed. Hiding it from all rows after the prompt (seen = 0) still leaves what the question's rows
    saw.

    Args:
        data: Samples; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        prompt: How the question is put; `Prompt(thinking=True)` where the chat template has to be told.
        thoughts: "own": the model's, generated greedily. "given": each sample's `meta["reasoning"]`, without marks.
        max_new_tokens: The most tokens of a thought and its answer. A thought that does not end within them is a
            failure: there is no answer to follow.
        answer_tokens: The most tokens of the answer that count.
        seed: Of the bootstrap.
        batch: Blinded passes side by side. Part of the hash: other batches round differently.

    Raises:
        StudyError: No samples, an unknown choice, a number of tokens below 1, or something of the wrong type.

    Source: attention knockout as in Geva et al., arXiv 2304.14767.
    """

    thoughts: str = field(default="own", validator=one_of("own", "given"))
    max_new_tokens: int = field(default=1024, validator=whole_number(1))
    answer_tokens: int = field(default=16, validator=whole_number(1))

    name = "reasoning-sweep"
    title = "Reasoning and the image"
    page = "interp.study.reasoning_sweep.page"

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return "From which sentence of its reasoning on does the model no longer need the image?"

    def task(self, mllm: Any) -> ReasoningTask:
        """The study as work for the runner."""
        return ReasoningTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> GridResult:
        """The result of this study, or of a grid over it."""
        return GridResult.of(whole, cells, folder)
