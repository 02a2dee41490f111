"""Table E.3: open questions of VQA-RAD, SLAKE and PathVQA by BLEU-1, BERTScore and recall.

    python studies/tableE3_open.py
    python studies/tableE3_open.py --model FreedomIntelligence/HuatuoGPT-Vision-7B-hf --device cuda --n None \
        --bert roberta-large --data vqa_rad,questions=open:FOLDER \
        slake,questions=open:FOLDER path_vqa,questions=open:FOLDER

Models as they are and under VGRefine, each scorer in a table, and the mean of the three for each answer's average.
Without `--bert` BERTScore is left out, and so is the average, because it needs an encoder: a folder with
`--bert-layer`, or an id in the hub's cache. The paper does not say which encoder it took. BLEU-1 needs the extra
`eval`; where that is missing, recall stands alone. LLaVA-Med's recall rewards answers that repeat a word; `--clean`
counts each word once. Without data it runs on the organism and on bundled closed questions, whose numbers are not the
paper's. Runs are stored under `--out`, and the same command resumes them; `tableE3_open.html` is the result.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from interp.cli import WorkerOptions, run_script
from interp.metrics.scorers import BertScore, Bleu1, OpenRecall, Scorer
from interp.paper_options import HeadChoice, HeadOptions
from interp.study import BenchmarkResult
from interp.study.benchmark.model_rows import baselines, question_sets, refined_row, run_rows, show
from interp.study.benchmark.tables import mean_rows, rows_text


def main(
    model: str = "organism", data: tuple[str, ...] = ("medical",), out: Path = Path("runs"), seed: int = 0,
    workers: WorkerOptions = 1, baseline: tuple[str, ...] = (), answers_only: tuple[str, ...] = (),
    split: tuple[str, ...] = ("test",), way: HeadOptions = HeadChoice(), n: int | None = 40, n_validation: int = 40,
    k: int | None = None, layers: tuple[int, ...] = (), bert: str = "", bert_layer: int | None = None,
    clean: bool = False, tokens: int = 32, batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Score open answers, as the model is and under VGRefine.

    Args:
        model: The model that VGRefine refines: "organism", a Hugging Face id or a local folder.
        data: Benchmarks such as vqa_rad,questions=open:FOLDER, bundled names, files or folders.
        out: Folder for runs and tableE3_open.html.
        seed: Draws the samples, and the groups of the bootstrap.
        workers: The number of worker processes, and where they run.
        baseline: Other models, which answer as they are.
        answers_only: Models that only answer; interp reads no attention of them.
        split: The split to report on, one for all data or one for each: test, validation, train or all.
        way: Choices in which paper and toolkit differ; and data to choose heads and layer on (default: natural scenes).
        n: The maximum number of questions per data set, drawn with the seed; None for all.
        n_validation: The maximum number of samples to choose on.
        k: The number of heads; by default 20, as in the paper, or an eighth of a small model's heads.
        layers: The masked layers; by default the published or the chosen one.
        bert: The encoder of BERTScore: a folder, or an id that is in the hub's cache; none leaves BERTScore out.
        bert_layer: The encoder's layer whose states are compared; needed for a folder.
        clean: Count a repeated word of an answer once in recall.
        tokens: The maximum number of tokens of an answer.
        batch_size: Samples per forward pass.
        device: Where models run.
        dtype: The models' floating-point type.
    """
    samples = question_sets(data, split, n=n, seed=seed)
    spec = way.model(model, device=device, dtype=dtype)
    more: dict[str, Any] = {"seed": seed, "batch": batch_size}
    chosen = {"n": n_validation, "k": k, "layers": layers, **way.choosing(spec)}
    own, found = refined_row(spec, out=out, workers=workers, **chosen, **more)
    print(found.said, end="\n\n")
    rows = [*baselines(baseline, answers_only, device=device, dtype=dtype), own]
    more |= {"scorer": scorers(bert, bert_layer, clean, device), "max_new_tokens": tokens}
    show_open(run_rows(rows, samples, out=out, workers=workers, **more), out / "tableE3_open.html")


def show_open(result: BenchmarkResult, page: Path) -> None:
    """The tables, the page, and the mean of the three scores."""
    show(result, page, beside=["E.3"], note=average(result))


def scorers(bert: str, bert_layer: int | None, clean: bool, device: str) -> list[Scorer]:
    """Recall, and what is at hand of BLEU-1 and BERTScore."""
    found: list[Scorer] = [OpenRecall(clean=clean)]
    found += [Bleu1()] if find_spec("nltk") else []
    return found + ([BertScore(bert, bert_layer, device=device)] if bert else [])


def average(result: BenchmarkResult) -> str:
    """The mean of the three scorers as a table, or what is missing for it."""
    if len(result.measure_names) < 3:
        missing = {"BLEU-1", "BERTScore"} - set(result.measure_names)
        return f"Without {' and '.join(sorted(missing))} there is no average as in the paper."
    return rows_text(mean_rows(result), "mean of the three, %")


if __name__ == "__main__":
    run_script(main)
