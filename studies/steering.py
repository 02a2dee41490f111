"""Steering: does a direction of the residual stream, found on some pairs, move the answers of others?

    python studies/steering.py
    python studies/steering.py --model llava-hf/llava-1.5-7b-hf --device cuda --positive yes --negative no

The samples of each of the two answers are split in halves. The first halves give the direction: the mean difference of
the residual stream at the last prompt token. The second half with the negative answer is steered after each layer, by
several α, with that direction and with a random one of the same norm. `steering.csv` under `--out` has the share of
answers that became the positive one, and the vector lies beside it. docs/editing.md says when steering misleads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import interp
from interp.cli import run_script
from interp.data import Samples
from interp.data.open import sets
from interp.inputs.answers import plain
from interp.report.tables import count, number, write_csv
from interp.study.dataframes import records


def main(
    model: str = "organism", data: str = "natural", out: Path = Path("runs"), seed: int = 0, n: int = 400,
    positive: str = "red", negative: str = "blue", alphas: tuple[float, ...] = (0.5, 1.0, 2.0), tokens: int = 4,
    batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """The share of answers that a direction moves, by layer and α, beside a random direction.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", a .jsonl file, or a folder of VGMED's or COCO's files.
        out: Folder for steering.csv and the vector.
        seed: Draws the samples and the random direction.
        n: The maximum number of samples, drawn with the seed.
        positive: The answer that is steered to.
        negative: The answer that is steered away from.
        alphas: The factors α by which the vector is multiplied before it is added.
        tokens: The maximum number of tokens of an answer.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    (samples,) = sets((data,), n=n, seed=seed, needed=True).values()
    halves = {answer: answered(samples, answer) for answer in (positive, negative)}
    size = min(len(first) for first, _ in halves.values())
    mllm = interp.load(model, device=device, dtype=dtype)
    pairs = [first[:size] for first, _ in halves.values()]
    vector = interp.steering_vector(mllm, *pairs, batch_size=batch_size, progress=False)
    vector.save(out / f"{negative}_to_{positive}.safetensors")
    held = halves[negative][1]
    rng = np.random.default_rng(seed)
    rows = [
        {**steered(mllm, held, vector, layer, alphas, positive, tokens, batch_size, rng), "n": len(held)}
        for layer in vector.layers
    ]
    pairs, others = count(vector.n_pairs, "pair"), count(len(held), "other sample")
    print(f"{negative} → {positive}: {pairs}, {others} steered; share of answers {positive!r}")
    told(pd.DataFrame(rows), out / "steering.csv")


def told(frame: pd.DataFrame, path: Path) -> None:
    """Prints the table and writes it."""
    for row in records(frame):
        shares = ", ".join(f"{name} {number(row[name])}" for name in frame.columns[3:-1])
        print(
            f"  layer {row['layer']}, agreement {number(row['agreement'])}, norm {number(row['norm'])}: {shares}"
        )
    write_csv(frame, path)
    print(f"Table: {path}")


def steered(
    mllm: interp.Mllm, held: Samples, vector: interp.SteeringVector, layer: int, alphas: tuple[float, ...],
    positive: str, tokens: int, batch_size: int, rng: np.random.Generator,
) -> dict[str, Any]:  # fmt: skip
    """The row of one layer: the share of answers that became the positive one, by α, beside a random direction."""
    own, place = vector.at(layer), vector.layers.index(layer)
    random = rng.normal(size=own.shape)
    random *= np.linalg.norm(own) / np.linalg.norm(random)
    norm = float(np.linalg.norm(own) / vector.stream_norm[place])
    row: dict[str, Any] = {"layer": layer, "agreement": float(vector.agreement[place]), "norm": norm}
    for alpha in alphas:
        for name, direction in (("vector", own), ("random", random)):
            edit = interp.AddResidual([layer], "last", direction, alpha, "all")
            said = mllm.answers(held, edits=[edit], generate=tokens, batch_size=batch_size, progress=False)
            row[f"{name} {alpha:g}"] = np.mean([plain(one or "") == plain(positive) for one in said])
    return row


def answered(samples: Samples, answer: str) -> tuple[Samples, Samples]:
    """The samples with this answer in two halves, groups kept whole."""
    own = samples.filter(lambda sample: plain(str(sample.answer or "")) == plain(answer))
    groups = sorted(set(own.groups))
    if len(groups) < 4:
        raise interp.InterpError(
            f"steering needs at least 4 groups with the answer {answer!r}; {samples.name} has {len(groups)}. Name "
            "other answers, or draw more samples."
        )
    first = set(groups[: len(groups) // 2])
    parts = [
        [s for s, g in zip(own, own.groups, strict=True) if (g in first) is half] for half in (True, False)
    ]
    return Samples(parts[0], own.name), Samples(parts[1], own.name)


if __name__ == "__main__":
    run_script(main)
