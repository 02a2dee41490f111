"""Figure 3: at which layers does a model look at the box, on natural and on medical images?

    python studies/fig3_layer_sweep.py
    python studies/fig3_layer_sweep.py --model llava-hf/llava-1.5-7b-hf --device cuda --dtype bfloat16
    python studies/fig3_layer_sweep.py --paper --model MODEL OTHER --data VGMED_FOLDER COCO_FOLDER

One grid: models × data sets × localization and attribute questions, on one page for all models. Each model's layer is
chosen on the validation split and reported on the test split. KL depends on the boxes' sizes, so by default its gain
over a uniform map is drawn; `--paper` draws KL itself and takes the layer where it is lowest. Runs are stored under
`--out`, and the same command resumes them; `fig3.html` beside them is the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

from interp.cli import WorkerOptions, run_script
from interp.data import Samples
from interp.data.open import BUNDLED, sets
from interp.paper_options import PaperChoice, PaperOptions
from interp.run import as_part
from interp.study import Grid, LayerSweep, Result, choose_layer
from interp.study.conventions import Conventions
from interp.study.study import words

PART = """Part {shard} is under {out}. When all are done: `interp merge` their folders into one, then run
this command again without --shard and with --out that folder: it only reports."""


def main(
    model: tuple[str, ...] = ("organism",), data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"),
    seed: int = 0, workers: WorkerOptions = 1, loaders: int = 0,
    n: Annotated[int, tyro.conf.arg(help="The maximum number of samples per data set; half choose the layer.")] = 160,
    metrics: tuple[str, ...] = (), way: PaperOptions = PaperChoice(),
    batch_size: int = 8, device: str = "cpu", dtype: str = "float32", shard: str = "",
) -> None:  # fmt: skip
    """Where does the model look, layer by layer?

    Args:
        model: One or more of "organism", Hugging Face ids, local folders.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files.
        out: Folder for runs and fig3.html.
        seed: Draws the samples, and the other samples whose boxes are the shuffled-boxes baseline.
        workers: The number of worker processes, and where they run.
        loaders: Threads of each process that prepare the next micro-batches while the model runs.
        n: The maximum number of samples per data set, drawn with the seed.
        metrics: Short names of interp.metrics.METRICS; by default ar kl_gain js, with --paper ar kl js.
        way: Choices in which paper and toolkit differ.
        batch_size: Samples per forward pass.
        device: Where the models run.
        dtype: The models' floating-point type.
        shard: "i/n" computes part i of n, for one of several machines; `interp merge` joins their --out.
    """
    part = as_part(shard)
    specs = way.models(words(model), device=device, dtype=dtype)
    chosen = way.conventions(metrics=metrics)

    def run(cells: dict[str, Samples]) -> Result:
        options: dict[str, Any] = {"metrics": chosen.measured, "rule": chosen.rule, "seed": seed}
        base = LayerSweep(data=next(iter(cells.values())), batch=batch_size, **options)
        return Grid(base, model=specs, data=cells).run(out, workers=workers, loaders=loaders, part=part)

    held_out = by_kind(sets(data, split="validation", n=max(n // 2, 1), seed=seed))
    validation = run(held_out) if held_out else None
    result = run(by_kind(sets(data, n=n, seed=seed, needed=True)))
    if part:
        print(PART.format(shard=shard, out=out))
        return
    show(result, validation, out, chosen)


def show(result: Result, validation: Result | None, out: Path, way: Conventions) -> None:
    """Tables, the layer chosen on the validation samples, and the report."""
    by = way.choose_by
    choice = choose_layer(validation, by) if validation else result.best_layer(by, descriptive=True)
    for metric in way.metrics:
        print(result.table(metric, choice=choice), end="\n\n")
    print(choice.sentence(result))
    if len(result.failures):
        print(result.failure_counts())
    print(f"Report: {result.report(out / 'fig3.html', choice=choice)}")


def by_kind(read: dict[str, Samples]) -> dict[str, Samples]:
    """Each set split by `meta["kind"]`, as "medical · attribute"; unsplit where its samples have no kind."""
    parts = {}
    for name, samples in read.items():
        for kind in dict.fromkeys(sample.meta.get("kind") for sample in samples):
            label = name if kind is None else f"{name} · {kind}"
            parts[label] = Samples((s for s in samples if s.meta.get("kind") == kind), label)
    return parts


if __name__ == "__main__":
    run_script(main)
