"""Information flow: between which tokens, and at which layers, is attention needed for the answer?

    python studies/information_flow.py
    python studies/information_flow.py --model llava-hf/llava-1.5-7b-hf --device cuda --data VGMED_FOLDER
    python studies/information_flow.py --flows "image->question" "image->last" "question->last" "last->last"

Attention from the image, the question and the box to later tokens is blocked in a window of layers around each layer in
turn (Geva et al., arXiv 2304.14767; for multimodal models arXiv 2411.18620), and the probability of the answer's first
token is compared with the unedited model's. As a control for the box, as many image tokens elsewhere are blocked. Runs
are stored under `--out`, and the same command resumes them; `information_flow.html` beside them is the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from interp.cli import WorkerOptions, run_script
from interp.data.open import BUNDLED, sets
from interp.study import Grid, KnockoutResult, KnockoutSweep, ModelSpec


def main(
    model: str = "organism", data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 80, flows: tuple[str, ...] = (),
    by: Literal["layer window", "layer", "head"] = "layer window", window: int | None = None, stride: int = 1,
    mode: Literal["renormalise", "zero"] = "renormalise", target: Literal["answer", "greedy"] = "answer",
    batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Block attention between groups of tokens, a few layers at a time.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files.
        out: Folder for runs and information_flow.html.
        seed: Draws the samples and the image tokens elsewhere.
        workers: The number of worker processes, and where they run.
        n: The maximum number of samples per data set, drawn with the seed.
        flows: Which attention to block, such as "image->last"; by default image, question and box to later tokens.
        by: What is blocked at a time: a window of layers, one layer or one head.
        window: The number of layers of a window; by default 9 for 32 layers, in proportion for other depths.
        stride: The number of layers from one window to the next.
        mode: Whether the blocked attention goes to the other keys or is lost.
        target: The answer whose first token is used: the sample's own or the unedited model's.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    read = sets(data, n=n, seed=seed, needed=True)
    spec, first = ModelSpec(model, device=device, dtype=dtype), next(iter(read.values()))
    sweep = KnockoutSweep(
        model=spec, data=first, flows=flows or None, by=by, window=window, stride=stride, mode=mode, target=target,
        seed=seed, batch=batch_size,
    )  # fmt: skip
    study = Grid(sweep, data=read) if len(read) > 1 else sweep
    show(study.run(out, workers=workers), out)


def show(result: KnockoutResult, out: Path) -> None:
    """Tables, sentences and the report."""
    if not result.by_head:
        for measure in ("relative", "accuracy"):
            print(result.table(measure), end="\n\n")
    print(*result.sentences(), sep="\n")
    if len(result.failures):
        print(result.failure_counts())
    print(f"Report: {result.report(out / 'information_flow.html')}")


if __name__ == "__main__":
    run_script(main)
