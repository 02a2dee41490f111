"""From which sentence of its reasoning on does a model that thinks no longer need the image?

    python studies/reasoning.py
    python studies/reasoning.py --model Qwen/Qwen3-VL-4B-Thinking --device cuda --dtype bfloat16 --data VGMED_FOLDER

The model reasons and answers. Then both texts are forced, and for each sentence the image is hidden from the rows of
that sentence, of all later sentences and of the answer. The figure is the change of the answer's log-probability by how
much of the reasoning saw the image, with intervals over groups. The default, "tiny", is a model of random weights that
is made to reason in given words: it shows that everything runs, and its numbers say nothing about any real model. Runs
are stored under `--out`, and the same command resumes them; `reasoning.html` beside them is the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.cli import WorkerOptions, run_script
from interp.data import Samples
from interp.data.open import sets
from interp.inputs.prompt import Prompt
from interp.report.tables import count, number, times
from interp.stats import MIN_GROUPS
from interp.study import Grid, ModelSpec, ReasoningSweep
from interp.study.dataframes import records

GIVEN = "there is a {label} . where is it ? the answer is {answer} ."
"""What the tiny model is made to reason; its words are those of its vocabulary, or unknown."""


def main(
    model: str = "tiny", data: tuple[str, ...] = ("natural",), out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 8, max_new_tokens: int = 1024, batch_size: int = 8,
    device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Hide the image from each sentence of a thought on.

    Args:
        model: "tiny", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files.
        out: Folder for runs and reasoning.html.
        seed: Draws the samples, and the groups of the bootstrap.
        workers: The number of worker processes, and where they run; "tiny" runs in one process.
        n: The maximum number of samples per data set, drawn with the seed.
        max_new_tokens: The maximum number of tokens of a thought and its answer.
        batch_size: The number of passes with a hidden image that run side by side.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    read = sets(data, n=n, seed=seed, needed=True)
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "seed": seed, "batch": batch_size}
    if model == "tiny":
        read = {name: with_thoughts(samples, name) for name, samples in read.items()}
        options |= {"thoughts": "given", "prompt": Prompt(thinking=True), "answer_tokens": 2}
    opened = tiny() if model == "tiny" else ModelSpec(model, device=device, dtype=dtype)
    base = ReasoningSweep(model=opened, data=next(iter(read.values())), **options)
    result = Grid(base, data=read).run(out, workers=1 if model == "tiny" else workers)
    print("Change of log p(answer), nats, with the image hidden from there on")
    summary = result.summary()
    for row in records(summary[summary.measure == "change"]):
        few = row["n_groups"] < MIN_GROUPS
        ends = "(too few groups for an interval)" if few else f"[{number(row['low'])}, {number(row['high'])}]"
        print(
            f"  {row['data']:>12}  seen by {row['seen']:>4.0%} of the sentences: {number(row['mean'])} {ends}"
        )
    if len(result.failures):
        print(
            f"{count(len(result.failures), 'failure')}. By reason: {times(result.failures.reason.value_counts())}"
        )
    print(f"Page: {result.report(out / 'reasoning.html')}")


def tiny() -> Any:
    """The tiny model that may think, of random weights."""
    import interp
    from interp.conformance.tiny.one_grid import tiny_thinking

    return interp.wrap(*tiny_thinking())


def with_thoughts(samples: Samples, name: str) -> Samples:
    """The samples, each with a thought to be forced."""
    return Samples(
        [
            one.replace(
                meta={
                    **one.meta,
                    "reasoning": GIVEN.format(label=one.meta.get("label", "circle"), answer=one.answer),
                }
            )
            for one in samples
        ],
        name,
    )


if __name__ == "__main__":
    run_script(main)
