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
    """Hides the image from each sentence of the reasoning on: is the model's own answer still as likely?

        interp.ReasoningSweep(data=samples, model="Qwen/Qwen3-VL-4B-Thinking").run().report("reasoning.html")

    For each sample the model reasons and answers. Then the reasoning and the answer are forced (teacher forcing), and
    for each k the rows of sentence k, of all later sentences and of the answer cannot attend to any image token; rows
    before sentence k see the image as before. In the last pass only the mark that ends the reasoning and the answer
    cannot see the image.

    The result's `scores` have the columns seen, measure and value. `seen` is the share of the sentences that see the
    image, from 0 to 1 in tenths; each tenth takes the value of the nearest sentence. Measures, in nats: "logprob" (Σ_t
    log p of the answer's tokens) and "change" (logprob minus the log-probability with the image visible throughout;
    below 0 where the image mattered). `result.samples` has the reasoning, the answer and `until`: the share of the
    sentences after which hiding the image, from there or from any later sentence, changes the log-probability by less
    than 0.1 nats. `result.cells[i].frame("sentences")` has the numbers of every sentence.

    A sentence can carry what an earlier row read from the image: no change shows that no further look is needed, not
    that the image was never needed. Hiding it from all rows after the prompt (seen = 0) keeps what the question's rows
    read.

    Args:
        data: Samples; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use).
        prompt: How the question is put; `Prompt(thinking=True)` for chat templates that need it.
        thoughts: "own": the model's own reasoning, generated greedily. "given": each sample's `meta["reasoning"]`,
            without marks.
        max_new_tokens: The maximum number of tokens of the reasoning and its answer together. Reasoning that does not
            end within them is a failure, because there is no answer to follow.
        answer_tokens: The maximum number of the answer's tokens that count.
        seed: The seed of the bootstrap.
        batch: The number of passes with a hidden image that run together. Part of the hash, because other batches round
            differently.

    Raises:
        StudyError: There are no samples, a choice is unknown, a number of tokens is below 1, or a field has the wrong
            type.

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
