"""Appendix J.1: which of two kinds of map do readers find more clinically reasonable and trustworthy?

    python studies/reader_study.py                                   # writes the page and, apart, its key
    python studies/reader_study.py --answers anna.json ben.json      # after readers have sent their files
    python studies/reader_study.py --simulate 5                      # a demonstration of the analysis, not a result

The conditions are plain attention and attention relative to a generic prompt, both at the layer that is best on the
validation split. Readers get `reader_study/page.html` under `--out` and nothing else; `reader_study_key.json` beside
that folder, which they must not see, says which map is which. The report is `reader_study.html`. `--simulate` lets a
rule answer in place of readers: it prefers the map with the higher attention ratio, more or less reliably. Its report
says so, and its numbers mean nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from interp.cli import WorkerOptions, run_script
from interp.data import Samples, named
from interp.indicators import Attention, Maps
from interp.inputs.prompt import GENERIC_PROMPT
from interp.metrics import attention_ratio
from interp.reader_study import Key, ReaderResult, read_key, read_study, stored_maps, write_pack
from interp.report.tables import count
from interp.study import LayerSweep, ModelSpec, Result, choose_layer

CONDITIONS = {"attention": Attention(), "relative attention": Attention(relative_to=GENERIC_PROMPT)}
SIMULATED = """No person answered. These answers come from a rule that prefers the map with the higher attention ratio,
more or less reliably. They show what the analysis does and are no result about maps, models or readers."""


def main(
    model: str = "organism", data: str = "medical", out: Path = Path("runs"), answers: tuple[Path, ...] = (),
    simulate: int = 0, n_cases: int = 20, n_duplicates: int | None = None, ties: bool = False,
    seed: int | None = None, draw: int = 0, n_validation: int = 40, workers: WorkerOptions = 1,
    batch_size: int = 8, device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """Make a reader study, or read what its readers answered.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", a .jsonl file, or a folder of VGMED's or COCO's files.
        out: Folder for runs, page, key and report.
        answers: The files that readers saved; then the page and key under `out` are read, and no model is run.
        simulate: The number of simulated readers, to try the analysis.
        n_cases: Cases on the page.
        n_duplicates: Cases shown twice, at most a third; by default 4, or a third of fewer than 12 cases.
        ties: Whether readers may say that neither map is better.
        seed: Draws order and sides; leave it out for real readers.
        draw: Draws the samples.
        n_validation: Samples of the validation split on which the layer is chosen.
        workers: The number of worker processes, and where they run.
        batch_size: Samples per forward pass.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    page, key = out / "reader_study" / "page.html", out / "reader_study_key.json"
    if answers:
        report(read_study(key, answers, page=page), out, "")
        return
    spec, shown = ModelSpec(model, device=device, dtype=dtype), named(data, n=n_cases, seed=draw)
    base = LayerSweep(model=spec, data=shown, metrics=("ar",), seed=draw, batch=batch_size)
    validation = named(data, split="validation", n=n_validation, seed=draw)
    samples, maps = maps_at_best_layer(base, validation, lambda study: study.run(out, workers=workers))
    n_duplicates = min(4, len(samples) // 3) if n_duplicates is None else n_duplicates
    pack = write_pack(samples, maps, page=page, key=key, n_duplicates=n_duplicates, ties=ties, seed=seed)
    print(f"For the readers: {pack.page} ({count(pack.n_items, 'item')}). Do not show them: {pack.key}")
    if simulate:
        files = simulated(read_key(key), samples, maps, out / "reader_study_simulated", simulate)
        report(read_study(key, files, page=page), out, SIMULATED)


def maps_at_best_layer(
    base: LayerSweep, validation: Samples, run: Callable[[LayerSweep], Result]
) -> tuple[Samples, dict[str, Maps]]:
    """The samples of `base` that both conditions measured, and each one's maps at the best layer on `validation`."""
    relative = CONDITIONS["relative attention"]
    (layer,) = choose_layer(run(base.replace(data=validation, indicator=relative))).layers.values()
    print(f"Maps of layer {layer}, which has the best mean attention ratio on validation.")
    return stored_maps({name: (run(base.replace(indicator=one)), layer) for name, one in CONDITIONS.items()})


def report(result: ReaderResult, out: Path, note: str) -> None:
    """Prints what readers preferred and writes the report."""
    if note:
        print(f"SIMULATED: {' '.join(note.split())}")
    print(
        result.preference()[["condition", "over", "share", "low", "high", "n"]]
        .round(3)
        .to_string(index=False)
    )
    print(result.per_reader().round(3).to_string(index=False))
    print(f"Report: {result.report(out / 'reader_study.html', note=note)}")


def simulated(key: Key, samples: Samples, maps: Mapping[str, Maps], folder: Path, n: int) -> list[Path]:
    """Files of answers by a rule: the map with the higher attention ratio is likely to win, by how much it leads."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for reader in range(n):
        care = rng.uniform(0.5, 3.0)  # how much this reader goes by the ratio
        given = []
        for item in key.items:
            ratios = [ratio(maps[side], samples, item.case) for side in (item.a, item.b)]
            lead = care * (math.log(ratios[0] + 0.01) - math.log(ratios[1] + 0.01))
            side = "A" if rng.random() < 1 / (1 + math.exp(-lead)) else "B"
            given.append({"item": item.item, "values": {"choice": side}})
        record = {"format": "interp reader study", "version": 1, "form": key.form, "answers": given}
        files.append(folder / f"simulated-{reader + 1}.json")
        files[-1].write_text(json.dumps(record | {"by": f"simulated reader {reader + 1}"}))
    return files


def ratio(maps: Maps, samples: Samples, case: int) -> float:
    """The attention ratio of a case's map; 1 where it is undefined."""
    tokens = maps.tokens[case]
    seen = ~np.isnan(tokens.footprints).any(axis=1)
    found = float(attention_ratio(maps.arrays[case].values[seen], tokens.mask(samples[case].boxes)[seen]))
    return 1.0 if math.isnan(found) else found


if __name__ == "__main__":
    run_script(main)
