"""Head roles: what each head does, and which heads have the highest and lowest values of each measure.

    python studies/head_roles.py
    python studies/head_roles.py --model llava-hf/llava-1.5-7b-hf --device cuda --data VGMED_FOLDER

Measured are the share of the image, the entropy, the share of the first token, whether the map stays the same on
another image, the effect of ablating the head, and whether its weights copy. Runs are stored under `--out`, and the
same command resumes them; `head_roles.html` beside them is the result. docs/heads.md has the definitions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from interp.cli import WorkerOptions, run_script
from interp.data.open import BUNDLED, sets
from interp.report.tables import number
from interp.study import Grid, HeadRoles, ModelSpec
from interp.study.dataframes import records


def main(
    model: str = "organism", data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 40, target: Literal["greedy", "answer"] = "greedy", batch_size: int = 8,
    device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """What each head does.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files.
        out: Folder for runs and head_roles.html.
        seed: Draws the samples.
        workers: The number of worker processes, and where they run.
        n: The maximum number of samples per data set, drawn with the seed.
        target: The answer whose first token is followed: the model's or the sample's own.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    read = sets(data, n=n, seed=seed, needed=True)
    spec = ModelSpec(model, device=device, dtype=dtype)
    base = HeadRoles(model=spec, data=next(iter(read.values())), target=target, seed=seed, batch=batch_size)
    result = Grid(base, data=read).run(out, workers=workers)
    for name, heads in result.heads.groupby("data", sort=False):
        for row in records(heads.sort_values("ablation", ascending=False).head(3)):
            measured = ", ".join(f"{measure} {number(row[measure])}" for measure in result.measures)
            print(f"  {name:>10}  {row['name']}: {measured}")
    if len(result.failures):
        print(result.failure_counts())
    print(f"Page: {result.report(out / 'head_roles.html')}")


if __name__ == "__main__":
    run_script(main)
