"""What image tokens say, through four lenses side by side: where is the object's word, or the answer?

    python studies/lenses.py
    python studies/lenses.py --model llava-hf/llava-1.5-7b-hf --device cuda --dtype bfloat16 --data VGMED_FOLDER \\
        --corpus wikitext.txt --n-tokens 64

The logit lens, the contextual-embedding lens (LatentLens), the Jacobian lens and a patchscope read the same words at
the same image tokens (docs/lens.md says what each is, what it costs and when it misleads). Each score has its own unit:
compare layers and places, not sizes. Runs are stored under `--out`, and the same command resumes them; `lenses.html`
beside them is the result. Needs `pip install "interp[lens]"`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.cli import WorkerOptions, run_script
from interp.data.open import BUNDLED, sets
from interp.report.tables import count, number, percent
from interp.stats import MIN_GROUPS
from interp.study import Grid, LensSweep, ModelSpec
from interp.study.dataframes import records, where
from interp.study.logit_lens.page import write_page
from interp.tracing.word_lenses import JacobianLens, LatentLens, Patchscope

SAME = "contextual, same layer"


def main(
    model: str = "organism", data: tuple[str, ...] = BUNDLED, out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 48, words: tuple[str, ...] = ("label", "answer"), batch_size: int = 8,
    device: str = "cpu", dtype: str = "float32", lens: tuple[str, ...] = (), corpus: Path | None = None,
    jacobians: Path | None = None, prompt: str | None = None, position: int = -1,
    n_tokens: int | None = None, about: str | None = None,
) -> None:  # fmt: skip
    """Read words at the image tokens through several lenses.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", .jsonl files, or folders of VGMED's or COCO's files.
        out: Folder for runs and lenses.html.
        seed: Draws the samples and decides whose word is the control.
        workers: The number of worker processes, and where they run.
        n: The maximum number of samples per data set, drawn with the seed.
        words: The words to look for: "label" (the object's word), "answer".
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
        lens: Which lenses, by name; by default all.
        corpus: A text file, one text a line, for the contextual and the Jacobian lens; by default bundled templates.
        jacobians: A file of `fit_jacobians`; by default they are fitted on the corpus.
        prompt: The patchscope's target prompt; by default the identity prompt.
        position: Which of its tokens is replaced; -1 is the last.
        n_tokens: The maximum number of image tokens that the patchscope reads.
        about: Keep only the questions whose `meta["about"]` is this, such as "colour".
    """
    read = sets(data, n=n, seed=seed, needed=True)
    if about is not None:
        read = {name: one.filter(lambda each: each.meta.get("about") == about) for name, one in read.items()}
    spec, first = ModelSpec(model, device=device, dtype=dtype), next(iter(read.values()))
    base = LensSweep(model=spec, data=first, words=words, seed=seed, batch=batch_size)
    named: dict[str, Any] = {} if prompt is None else {"prompt": prompt}
    known = lenses(corpus, jacobians, Patchscope(**named, position=position, n_tokens=n_tokens))
    result = Grid(base, data=read, lens={name: known[name] for name in (lens or known)}).run(
        out, workers=workers
    )
    told(result)
    print(f"Page: {write_page(result, out / 'lenses.html')}")


def lenses(corpus: Path | None, jacobians: Path | None, patchscope: Patchscope) -> dict[str, Any]:
    """The lenses that can be read through, by name."""
    return {
        "logit": "logit",
        "contextual": LatentLens(corpus),
        SAME: LatentLens(corpus, candidates="same"),
        "jacobian": JacobianLens(corpus=corpus) if jacobians is None else JacobianLens(jacobians),
        "patchscope": patchscope,
    }


def told(result: Any) -> None:
    """Prints the best layer of each lens, and what failed."""
    print(
        "Mean AUROC of the word's map by the boxes, at its best layer (a description); where it is the first word"
    )
    for row in best(result):
        few = row["n_groups"] < MIN_GROUPS
        ends = "(too few groups for an interval)" if few else f"[{number(row['low'])}, {number(row['high'])}]"
        said = (
            f"{number(row['mean'])} {ends}, {count(row['n'], 'sample')} in {count(row['n_groups'], 'group')}"
        )
        first = at_layer(result, row)
        inside, outside = (
            float(where(first, first.measure == f"first {place}")["mean"].iloc[0])
            for place in ("inside", "outside")
        )
        said = f"{said}; first at {percent(inside)} of the box's tokens and {percent(outside)} of the others"
        print(f"  {row['data']:>8}  {row['word']:<7} {row['lens']:<23} layer {row['layer']:>2}: {said}")
    if len(result.failures):
        print(result.failure_counts())


def best(result: Any) -> list[dict[str, Any]]:
    """The layer of the largest mean AUROC of each (data, word, lens), of the sample's own word."""
    summary = result.summary()
    own = where(summary, (summary.measure == "auroc") & (summary.of == "own word"))
    at = own.groupby(["data", "word", "lens"], sort=False)["mean"].idxmax()
    return records(own.loc[at])


def at_layer(result: Any, row: dict[str, Any]) -> Any:
    """The summary's rows of the sample's own word at a row's place."""
    summary = where(result.summary(), result.summary().of == "own word")
    for name in ("data", "word", "lens", "layer"):
        summary = where(summary, summary[name] == row[name])
    return summary


if __name__ == "__main__":
    run_script(main)
