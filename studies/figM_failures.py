"""Figure M: when the answer is wrong, did the model look at the box? And when it is right?

    python studies/figM_failures.py
    python studies/figM_failures.py --model llava-hf/llava-1.5-7b-hf --device cuda --data VGMED_FOLDER

Counts of samples by where the model looked (at the box or elsewhere) and by its answer (right or wrong), with intervals
over groups, and examples of the two kinds in which look and answer disagree. Layer and threshold are chosen on the
validation split. The page is `figM.html` under `--out`, and `figM.csv` has every sample's verdict; the runs are beside
them, and the same command resumes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from interp.cli import WorkerOptions, run_script
from interp.data import Samples
from interp.data.open import BUNDLED, sets
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT
from interp.paper_options import PaperChoice, PaperOptions
from interp.report.tables import count, write_csv
from interp.study import Grid, LayerSweep, Result, choose_layer
from interp.study.dataframes import records
from interp.study.layer_sweep.failures import counts, thresholds, verdicts, write_page

MAPS = Attention(GENERIC_PROMPT)


def main(
    model: str = "organism", data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 160, n_validation: int = 80, way: PaperOptions = PaperChoice(),
    batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Count the samples where the look and the answer disagree.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files. Answers are needed.
        out: Folder for runs, figM.html and figM.csv.
        seed: Draws the samples, and the other samples whose boxes are the shuffled-boxes baseline.
        workers: The number of worker processes, and where they run.
        n: The maximum number of test samples per data set.
        n_validation: The maximum number of validation samples per data set, for the layer and the threshold.
        way: Whether boxes and Qwen's pixels are as in the paper's code; the layer is always chosen by AR.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    spec, rule = way.model(model, device=device, dtype=dtype), way.conventions().rule

    def run(read: dict[str, Samples]) -> Result:
        options: dict[str, Any] = {"metrics": ("ar",), "rule": rule, "seed": seed, "batch": batch_size}
        base = LayerSweep(model=spec, data=next(iter(read.values())), indicator=MAPS, **options)
        return Grid(base, data=read).run(out, workers=workers)

    test, validation = both_splits(data, n, n_validation, seed)
    chosen_on, result = run({name: validation[name] for name in test}), run(test)
    choice = choose_layer(chosen_on)
    limits = thresholds(chosen_on, choice)
    found = verdicts(result, choice, limits)
    if found.empty:
        raise SystemExit(
            "no sample has both an answer to judge and a defined AR: the data's rows need answers."
        )
    write_csv(found, out / "figM.csv")
    print(choice.sentence(result))
    print_counts(found, seed)
    print(f"Page: {write_page(result, out / 'figM.html', choice=choice, limits=limits, found=found)}")


def both_splits(
    data: tuple[str, ...], n: int, n_validation: int, seed: int
) -> tuple[dict[str, Samples], dict[str, Samples]]:
    """Test and validation samples of the same sets."""
    test = sets(data, n=n, seed=seed, needed=True)
    validation = sets(data, split="validation", n=n_validation, seed=seed)
    absent = [name for name in test if name not in validation]
    if absent:
        raise SystemExit(
            f"no validation samples to set a threshold on: {absent}. Give rows a group or a split."
        )
    return test, validation


def print_counts(found: pd.DataFrame, seed: int) -> None:
    for row in records(counts(found, seed=seed)):
        interval = "" if row["note"] else f" [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
        share = f"{100 * row['share']:.0f}{interval} %, expected {100 * row['expected']:.0f} %"
        print(
            f"{row['data']:>10}  {row['outcome']:<24} {row['n']:>4}  {share} ({count(row['n_groups'], 'group')})"
        )


if __name__ == "__main__":
    run_script(main)
