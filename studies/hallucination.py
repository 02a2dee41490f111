"""Hallucination: does the model say yes to what is not in the picture, and do other decodings help? After POPE.

    python studies/hallucination.py
    python studies/hallucination.py --model llava-hf/llava-1.5-7b-hf --device cuda --data coco_instances.json --n 500
    python studies/hallucination.py --data balanced --findings findings.json

For each labelled picture the study asks as many questions about labels that are there as about labels that are not. The
absent labels are drawn at random, or are the most frequent ones (popular), or those that often occur with the present
ones (adversarial). Data whose answers are all yes or no are used as they are. The plain model answers each question,
also under VCD and PAI, and under CCD where `--findings` gives the output of a classifier of yours. The result is
accuracy, precision, recall, F1 and the share of yes, with intervals over pictures, and paired differences. Runs are
stored under `--out`, and the same command resumes them; `hallucination.html` and `hallucination.csv` are the result.

“No” is a true answer only where the annotation names everything. This holds for the rendered scenes and, of the bundled
slices, for the "balanced" questions alone. The organism's numbers show what the study prints; they say nothing about
other models.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from interp.cli import WorkerOptions, run_script
from interp.data import Samples, bundled, presence_questions
from interp.data.open import sets
from interp.data.scenes import natural_scenes, rendered_sample
from interp.inputs.answers import plain
from interp.methods import CCD, PAI, VCD, Method, Plain
from interp.report.tables import count, percent, times, write_csv
from interp.study import Benchmark, BenchmarkResult, Grid, ModelSpec
from interp.study.dataframes import records

VISIBLE = "Is the {label} visible?"


def main(
    model: str = "organism", data: tuple[str, ...] = ("natural", "balanced"), out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, n: int = 60, per_picture: int = 3, question: str = VISIBLE,
    findings: Path | None = None, tokens: int = 4, batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Whether the model says yes to what is not there.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "balanced", or files and folders of labelled pictures or of questions answered yes or no.
        out: Folder for runs, hallucination.html and hallucination.csv.
        seed: Draws pictures and labels, and the groups of the bootstrap.
        workers: The number of worker processes, and where they run.
        n: The maximum number of labelled samples (of scenes: pictures), or of questions, per data set.
        per_picture: The number of present labels asked about per picture; as many absent ones are added.
        question: A template with {label}, and {a} for "a" or "an".
        findings: A JSON file: sample id → label → probability; adds CCD.
        tokens: The maximum number of tokens of an answer.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    asked = {
        name: questions(samples, question, per_picture, seed)
        for name, samples in pictures(data, n, seed).items()
    }
    methods: dict[str, Method] = {"Plain": Plain(), "VCD": VCD(seed=seed), "PAI": PAI()}
    if findings is not None:
        methods["CCD"] = CCD(json.loads(findings.read_text("utf-8")))
    study = Benchmark(
        model=ModelSpec(model, device=device, dtype=dtype), data=next(iter(asked.values())), max_new_tokens=tokens,
        seed=seed, batch=batch_size,
    )  # fmt: skip
    result = Grid(study, data=asked, method=methods).run(out, workers=workers)
    show(result, out)


def pictures(names: tuple[str, ...], n: int, seed: int) -> dict[str, Samples]:
    """Label → samples; those of scenes name every shape that is there, and of "balanced" only presence is asked."""
    found: dict[str, Samples] = {}
    for name in names:
        if name == "natural":
            found[name] = scenes(n, seed)
        elif name == "balanced":
            whole = bundled(name).filter(lambda sample: sample.answer in ("yes", "no"))
            kept = np.random.default_rng(seed).permutation(len(whole))[:n]
            found[name] = whole.like([whole[int(i)] for i in sorted(kept)])
        else:
            found |= sets((name,), n=n, seed=seed, needed=True)
    return found


def scenes(n: int, seed: int) -> Samples:
    """A sample of every object of n rendered scenes, so that what no sample of a scene names is not in it."""
    made = []
    for i, (scene, _) in enumerate(natural_scenes("test", n, seed)):
        own = {one.thing.shape: one for one in scene.questions()}
        name = f"scene-{seed}-test-{i:05d}"
        for shape, one in own.items():
            sample = rendered_sample(scene.render, one, name, "interp.data.scenes", present=sorted(own))
            made.append(sample.replace(id=f"{name}-{shape}"))
    return Samples(made, "natural")


def questions(samples: Samples, question: str, per_picture: int, seed: int) -> Samples:
    """Questions of presence about labelled pictures; samples that are all answered yes or no are taken as they are."""
    answered = {plain(sample.answer) for sample in samples if sample.answer is not None}
    if answered == {"yes", "no"}:
        return samples
    return presence_questions(samples, per_picture=per_picture, question=question, seed=seed)


def show(result: BenchmarkResult, out: Path) -> None:
    """Prints the marks by data, method and kind of absent labels, and writes the table and the page."""
    table = result.yes_no("negatives" if "negatives" in result.strata() else None)
    keys = [name for name in ("data", "method", "negatives") if name in table]
    for _, own in table.groupby(keys, sort=False):
        marks = {row["measure"]: row for row in records(own)}
        said = ", ".join(f"{name} {percent(row['value'])}" for name, row in marks.items())
        line = " · ".join(str(marks["f1"][key]) for key in keys)
        print(f"  {line}: {said} (n = {marks['f1']['n']})")
    write_csv(table, out / "hallucination.csv")
    if len(result.failures):
        print(
            f"{count(len(result.failures), 'failure')}. By reason: {times(result.failures.reason.value_counts())}"
        )
    print(f"Page: {result.report(out / 'hallucination.html')}")


if __name__ == "__main__":
    run_script(main)
