"""Circuit: through which heads does the image reach the answer, and how many edges carry it?

    python studies/circuit.py
    python studies/circuit.py --data natural --n 40 --against zero --n-edges 80

Edge attribution patching estimates the effect of every edge between heads, MLPs, the image and the answer; the
strongest edges are also patched exactly. The graph is chosen on the first half of the samples and tested on the second
half, where all other edges are replaced. Runs are stored under `--out`, and the same command resumes them;
`circuit.html` (first half) and `circuit_kept.html` (second half) are the result. It is for small models, because what
every node writes at every token of a sample is kept in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from interp.cli import WorkerOptions, run_script
from interp.data.open import sets
from interp.report.tables import number
from interp.study import Circuit, CircuitResult, ModelSpec
from interp.study.dataframes import records, where


def main(
    model: str = "organism", data: tuple[str, ...] = ("natural",), out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 40, against: Literal["image", "mean", "zero"] = "image",
    n_edges: int = 160, exact: int = 10, executor: Literal["transformers", "transformer_lens"] = "transformers",
    batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Through which heads the image reaches the answer.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files; the first is used.
        out: Folder for runs and pages.
        seed: Draws the samples.
        workers: The number of worker processes, and where they run.
        n: The maximum number of samples.
        against: What replaces an edge: its value for another image, its mean over other images, or zero.
        n_edges: The number of edges of the graph that is tested on the second half.
        exact: The number of edges that are patched exactly in each sample.
        executor: What runs the decoder: the model's own layers, or TransformerLens' on the same weights.
        batch_size: Changes no result, because samples run one by one; it is part of a run's hash.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    samples = next(iter(sets(data, n=n, seed=seed, needed=True).values()))
    spec, half = ModelSpec(model, device=device, dtype=dtype), len(samples) // 2
    study = Circuit(
        model=spec, data=samples[:half], against=against, exact=exact, executor=executor, seed=seed, batch=batch_size
    )  # fmt: skip
    chosen = study.run(out, workers=workers)
    for row in records(chosen.edges.head(8)):
        print(
            f"  {row['source']} → {row['receiver']}: {number(row['effect'], 3)} nats, exact {number(row['exact'], 3)}"
        )
    graph = chosen.graph(n_edges)
    sizes = [size for size in (*study.sizes, n_edges) if size <= n_edges]
    kept = study.replace(data=samples[half:], graph=graph, sizes=sizes, exact=0).run(out, workers=workers)
    for name, result in (("each sample's own edges", chosen), ("the graph, on the other half", kept)):
        print(f"  {name}: {shares(result)}")
    print(f"Pages: {chosen.report(out / 'circuit.html')}, {kept.report(out / 'circuit_kept.html')}")


def shares(result: CircuitResult) -> str:
    """The mean share kept by the number of edges."""
    own = where(result.summary(), result.summary().measure == "share").sort_values("n_edges")
    return ", ".join(f"{row['n_edges']}: {number(row['mean'])}" for row in records(own))


if __name__ == "__main__":
    run_script(main)
