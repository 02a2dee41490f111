"""Each script of `studies/` from its command line to its page, on a few samples of the organism."""

from __future__ import annotations

import ast
import html
import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.cli import run_script
from interp.data import Samples, named
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT
from interp.inputs.sample import Sample
from interp.metrics import attention_ratio
from interp.paper_options import PaperChoice
from interp.tracing import load
from tests.studies.scripts import STUDIES, script


@pytest.fixture(scope="module")
def vgmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes under SA-Med2D's names, two slices a volume, with rows that know image, question and boxes alone."""
    root = tmp_path_factory.mktemp("vgmed")
    scenes = named("natural", n=16)
    rows: dict[str, list[str]] = {"localization": [], "attribute": []}
    for i, scene in enumerate(scenes):
        name = f"ct_00--Set--Case_{i // 2}--x_{i % 2}.png"
        scene.load().save(root / name)
        box = scene.boxes[0].as_tuple()
        rows[scene.meta["kind"]].append(
            json.dumps({"image": name, "question": scene.question, "bbox": [box]})
        )
    for kind, lines in rows.items():
        (root / f"VGMED_{kind}.jsonl").write_text("\n".join(lines))
    return root


@pytest.mark.slow
def test_figure_1_shows_and_scores_randomly_drawn_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("fig1_attention_maps").main(out=tmp_path, n=2, n_validation=4, seed=3)
    page = (tmp_path / "fig1.html").read_text()
    page = page[page.index("<main") :]
    said = re.search(r"Layer (\d) of organism: .* on validation samples that share no group with these", page)
    assert said is not None
    assert said.group().lower() in capsys.readouterr().out.lower()
    mllm = load("organism")
    for sample in (*named("natural", n=2, seed=3), *named("medical", n=2, seed=3)):
        card = next(part for part in page.split('class="card sample"') if f"<code>{sample.id}</code>" in part)
        maps = Attention(GENERIC_PROMPT)(mllm, [sample])
        seen = ~np.isnan(maps.tokens[0].footprints).any(axis=1)  # not those on the padding around the image
        inside = maps.tokens[0].mask(sample.boxes)
        ratio = attention_ratio(maps[0].values[:, seen], inside[seen])[int(said.group(1))]
        assert float(card.partition(">AR ")[2].partition("<")[0]) == pytest.approx(ratio, abs=0.02)
        assert card.count("<img ") == 3
    assert page.count('class="card sample"') == 4
    assert "model organism" in page


@pytest.mark.slow
def test_figure_l_compares_each_kind_with_the_last_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("figL_text_tokens").main(data=("natural",), out=tmp_path, n=3, n_validation=2)
    said = capsys.readouterr().out
    page = html.unescape((tmp_path / "figL.html").read_text())
    for kind in ("last token", "question's words", "object's word", "first answer token", "every row after"):
        assert kind in page
    assert said.count("minus last") == 8  # four kinds, relative and plain
    assert "None: every sample was measured." in page
    assert "Only 3 groups" in page
    mllm, ratios = load("organism"), []
    line = next(line for line in said.split("plain attention")[1].splitlines() if "object's word" in line)
    layer = int(line.partition("layer ")[2].partition(":")[0])
    for sample in named("natural", n=3):
        maps = Attention(queries="label")(mllm, [sample])
        ratios.append(attention_ratio(maps[0].sel(layer=layer).values, maps.tokens[0].mask(sample.boxes)))
    assert f"layer {layer}: {np.mean(ratios):.2f}" in line


def test_figure_l_leaves_out_object_words_nobody_names(vgmed: Path) -> None:
    answerable: Any = script("figL_text_tokens").answerable
    named_objects = named("natural", n=2)
    every = ["last", "question", "label", "answer", "after_image"]
    assert list(answerable({"a": named_objects}).values()) == every
    unnamed = named(str(vgmed), n=2)
    every.remove("label")
    assert list(answerable({"a": named_objects, "b": unnamed}).values()) == every


@pytest.mark.slow
def test_figure_m_counts_every_sample_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("figM_failures").main(out=tmp_path, n=6, n_validation=6)
    found = pd.read_csv(tmp_path / "figM.csv")
    assert len(found) == 12
    assert set(found["sample"]) == {s.id for name in ("natural", "medical") for s in named(name, n=6)}
    said = capsys.readouterr().out
    for data in ("natural", "medical"):
        own = found[found.data == data]
        limit = own.ar[~own.looked].max()
        assert not (own.ar[own.looked] <= limit).any()
        for outcome, rows in own.groupby("outcome"):
            line = next(text for text in said.splitlines() if text.split("  ")[0].strip() in ("", data)
                        and f"{data}  {outcome} " in text)  # fmt: skip
            assert int(line.split(str(outcome))[1].split()[0]) == len(rows)
    page = (tmp_path / "figM.html").read_text()
    assert "Looked elsewhere, right" in page
    assert "not proof of a cause" in page


def test_figure_m_needs_answers(vgmed: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="need answers"):
        script("figM_failures").main(data=(str(vgmed),), out=tmp_path, n=2, n_validation=2)


def test_figure_3_is_one_grid_of_models_data_and_kinds(
    vgmed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("fig3_layer_sweep").main(data=(str(vgmed),), out=tmp_path, n=6)
    grids = list(tmp_path.glob("grid-*/study.json"))
    assert len(grids) == 2  # validation and test
    labels = {cell["labels"]["data"] for path in grids for cell in json.loads(path.read_text())["cells"]}
    assert labels == {f"{vgmed.name} · attribute", f"{vgmed.name} · localization"}
    said = capsys.readouterr().out
    assert "best mean attention ratio on validation" in said
    assert "attention ratio (higher is better)" in said
    assert "on validation samples that share no group with these" in said
    assert f"Report: {tmp_path / 'fig3.html'}" in said
    report = html.unescape((tmp_path / "fig3.html").read_text())
    assert all(label in report for label in labels)


def test_figure_3_in_the_papers_way_draws_kl_itself(vgmed: Path, tmp_path: Path) -> None:
    script("fig3_layer_sweep").main(data=(str(vgmed),), out=tmp_path, n=4, way=PaperChoice(paper=True))
    runs = [json.loads(file.read_text()) for file in tmp_path.glob("layer-sweep-*/study.json")]
    assert {(tuple(run["metrics"]), run["rule"]) for run in runs} == {
        (("ar", "kl", "js", "kl_gain"), "stretch")
    }
    report = html.unescape((tmp_path / "fig3.html").read_text())
    assert "the best mean KL divergence (nats) on" in report


def test_a_set_is_parted_by_the_kinds_its_samples_name() -> None:
    by_kind: Any = script("fig3_layer_sweep").by_kind
    made = Samples([Sample("a.png", "?", meta={"kind": kind}) for kind in ("x", "y", "x")], "a")
    parts = by_kind({"a": made, "b": Samples([Sample("b.png", "?")], "b")})
    assert {label: len(samples) for label, samples in parts.items()} == {"a · x": 2, "a · y": 1, "b": 1}


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.py")), ids=lambda path: path.stem)
def test_scripts_are_short_and_have_the_same_arguments(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 150
    arguments = script(path.stem).main.__annotations__
    of_models = {"model", "batch_size"} if path.stem not in ("features", "fig2_dataset") else set()
    of_runs = {"workers"} if path.stem not in WITHOUT_RUNS else set()
    assert {"data", "out", "seed"} | of_models | of_runs <= set(arguments)


def test_scripts_have_one_worker_unless_told_otherwise() -> None:
    mains = {name: script(name).main for name in SCRIPTS if name not in WITHOUT_RUNS}
    defaults = {name: inspect.signature(main).parameters["workers"].default for name, main in mains.items()}
    assert set(defaults.values()) == {
        1
    }  # what the options' help says; tyro takes no other number from a script


WITHOUT_RUNS = ("attend_and_segment", "features", "fig2_dataset", "steering")
"""Scripts that run no study, so that there is nothing to share among workers."""
SCRIPTS = sorted(file.stem for file in STUDIES.glob("*.py"))
TYPOS = {
    "an option": (["--sed", "3"], "Unrecognized options: --sed"),
    "a number": (["--seed", "three"], "Error parsing --seed"),
    "a file": (
        ["--model", "organism", "--data", "missing.jsonl"],
        "no data 'missing.jsonl': it does not exist",
    ),
}


@pytest.mark.covering
@pytest.mark.parametrize("what", TYPOS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_typo_ends_a_script_with_one_line(
    name: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args, message = TYPOS[what]
    args = args[-2:] if name == "fig2_dataset" else args  # it runs no model
    with pytest.raises(SystemExit) as end:
        run_script(script(name).main, args=[*args, "--out", str(tmp_path)])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1


def test_a_wrong_model_ends_a_script_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model", str(tmp_path / "no-model"), "--data", "natural", "--n", "2", "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match="2"):
        run_script(script("logit_lens").main, args=args)
    assert re.fullmatch(r"error: .*no-model.*\n", capsys.readouterr().err)


def test_main_functions_are_read_at_one_sitting() -> None:
    for name in SCRIPTS:
        source = ast.parse((STUDIES / f"{name}.py").read_text())
        for node in (one for one in ast.walk(source) if isinstance(one, ast.FunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < 40, f"{name}: {node.name}"
