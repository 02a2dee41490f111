"""Made-up questions for a model, studies, configs, stored files and command lines, and what must hold of each."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

import interp
from interp import study
from interp.cli import main
from interp.conformance.tiny import tiny
from interp.run import canonical
from tests.fuzz.input_kinds import JSON, ODD, TEXT, changed, mutated, scratch
from tests.fuzz.model_calls import opened
from tests.study.planted import Model, Planted, samples, sweep

# ---- questions for a model ------------------------------------------------------------------------------------------

QUESTIONS = st.tuples(TEXT, st.sampled_from(["letters", "none"]), st.booleans(), st.none() | TEXT)


def check_question(value: tuple[str, str, bool, str | None]) -> None:
    """Tokens are as many as the input has, image tokens as many as the grid, and the question lies among them."""
    question, options, image_first, system = value
    prompt = interp.Prompt(options=options, image_first=image_first, system=system)
    batch = opened().mllm.encode(interp.Sample(opened().sample.load(), question), prompt)
    tokens, ids = batch.tokens[0], batch.inputs["input_ids"][0]
    assert tokens.length == len(ids)
    assert tokens.n == 16
    image = opened().mllm.image_token_id
    assert np.flatnonzero(ids.numpy() == image).tolist() == tokens.image.tolist()
    found = tokens.positions("question")
    assert not set(found) & set(tokens.image)


# ---- studies --------------------------------------------------------------------------------------------------------

FIELDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Benchmark": (study.Benchmark, {"max_new_tokens": 2, "edits": [], "seed": 0, "batch": 2}),
    "LayerSweep": (study.LayerSweep, {"metrics": ["ar"], "rule": "touch", "seed": 1, "batch": 2}),
    "HeadRanking": (study.HeadRanking, {"metric": "kl", "split": "validation", "rule": "touch", "batch": 2}),
    "HeadAttribution": (study.HeadAttribution, {"target": "greedy", "seed": 0, "batch": 2}),
    "HeadRoles": (study.HeadRoles, {"target": "greedy", "ablate": True, "seed": 0, "batch": 2}),
    "Circuit": (
        study.Circuit,
        {
            "against": "mean", "n_images": 2, "sizes": [5], "exact": 2, "graph": [["image", "answer"]],
            "executor": "transformers",
        },
    ),
    "LensSweep": (study.LensSweep, {"words": ["label"], "lens": "contextual", "rule": "touch", "seed": 0}),
    "ProbeSweep": (study.ProbeSweep, {"positions": ["last"], "target": "answer", "folds": 2, "penalty": 1.0}),
    "StatedBoxes": (
        study.StatedBoxes,
        {
            "convention": "internvl", "answers": {"a": "x"}, "generate": 4, "layers": [0], "threshold": 0.9,
            "upsample": "nearest", "rule": "touch", "seed": 0, "batch": 2,
        },
    ),
    "ReasoningSweep": (study.ReasoningSweep, {"thoughts": "given", "max_new_tokens": 8, "answer_tokens": 2}),
    "KnockoutSweep": (
        study.KnockoutSweep,
        {"flows": ["image→last"], "by": "layer window", "window": 3, "stride": 1, "mode": "zero", "target": "greedy"},
    ),
    "Refinement": (study.Refinement, {"max_new_tokens": 2, "read_layer": 1, "seed": 0}),
    "IndicatorComparison": (
        study.IndicatorComparison,
        {
            "metrics": ["ar"], "truth": ["boxes"], "layers": {}, "choose_by": "ar", "steps": [0.1, 0.5],
            "erased": [0.1], "least": 0.1, "agreement": ["kendall"], "randomised": [0.5, "all"],
            "n_faithful": 1, "n_checked": 2,
            "few": {"random": 1}, "rule": "touch", "choices": {},
        },
    ),
}  # fmt: skip
STUDIES = st.sampled_from(sorted(FIELDS)).flatmap(
    lambda name: st.tuples(
        st.just(name), changed(FIELDS[name][1]).filter(lambda found: isinstance(found, dict))
    )
)


@cache
def _data() -> Any:
    return samples(4)


def check_study(value: tuple[str, dict[str, Any]]) -> None:
    """A study that is taken equals one of the same fields, hashes like it, and says what it is."""
    name, fields = value
    kind = FIELDS[name][0]
    known = {key: one for key, one in fields.items() if key in kind.__dataclass_fields__}
    made = kind(data=_data(), **known)
    again = made.replace()
    assert again == made
    assert hash(again) == hash(made)
    assert made.question
    assert made.label
    if name == "LayerSweep":
        described = made.replace(indicator=Planted()).to_dict(Model())
        assert json.loads(canonical(described)) == json.loads(json.dumps(described))


# ---- configs --------------------------------------------------------------------------------------------------------


@cache
def _checkpoint() -> tuple[Path, dict[str, Any]]:
    folder = scratch() / "checkpoint"
    model, processor = tiny("llava")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, json.loads((folder / "config.json").read_text())


def _small(value: Any) -> bool:
    """Whether no size in it would make weights for seconds: they are made before they are compared with the files."""
    if isinstance(value, dict):
        sizes = [one for name, one in value.items() if name.endswith(("_size", "_dim"))]
        return not any(type(one) is int and one > 5_000 for one in sizes) and all(map(_small, value.values()))
    return True


CONFIGS = st.deferred(lambda: changed(_checkpoint()[1]).filter(_small))


def check_config(value: Any) -> None:
    """A checkpoint whose config was changed is refused, or is a model that can be traced or says why not."""
    folder, _ = _checkpoint()
    (folder / "config.json").write_text(json.dumps(value))
    mllm = interp.load(folder)
    mllm.trace([opened().sample])


# ---- stored files ---------------------------------------------------------------------------------------------------


@cache
def _run() -> tuple[Path, tuple[str, ...], pd.DataFrame]:
    """A run, its files, and its scores."""
    whole = scratch() / "whole"
    result = sweep(data=_data()).run(whole, progress=False)
    files = tuple(sorted(str(p.relative_to(whole)) for p in whole.rglob("*") if p.is_file()))
    return whole, files, result.scores


@st.composite
def stored(draw: st.DrawFn) -> tuple[str, bytes]:
    """One file of a run, and what stands in it instead."""
    whole, files, _ = _run()
    name = draw(st.sampled_from(files))
    data = (whole / name).read_bytes()
    if name.endswith(".json") and draw(st.booleans()):
        return name, json.dumps(draw(changed(json.loads(data)))).encode()
    return name, draw(mutated(st.just(data)) | st.just(b""))


def check_stored(value: tuple[str, bytes]) -> None:
    """A run with a damaged file is mended, or refused; its scores are never other ones."""
    whole, _, scores = _run()
    name, data = value
    out = Path(tempfile.mkdtemp(dir=scratch()))
    try:
        shutil.copytree(whole, out, dirs_exist_ok=True)
        (out / name).write_bytes(data)
        result = sweep(data=_data()).run(out, progress=False)
        pd.testing.assert_frame_equal(result.scores, scores)
        assert len(result.failures) == 0
        assert len(result.cost) == 1
    finally:
        shutil.rmtree(out)


# ---- command lines --------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        "check",
        "convert",
        "merge",
        "models",
        "--all",
        "--record",
        "--dtype",
        "--probes",
        "--seed",
        "--help",
        "llava",
        "x",
    ]
) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
COMMANDS = st.lists(WORDS, max_size=4).filter(lambda words: "check" not in words or "--all" not in words)


def check_command(value: list[str]) -> None:
    """The command line ends with a code, in words, and never with a traceback."""
    before, said = os.getcwd(), StringIO()
    os.chdir(scratch())
    try:
        with redirect_stdout(said), redirect_stderr(said):
            code = main(value) if "llava" not in value else 0
    except SystemExit as stop:
        code = stop.code
    finally:
        os.chdir(before)
    assert code in (0, 1, 2)
    assert "Traceback" not in said.getvalue()


MIXED = st.dictionaries(
    st.sampled_from(["id", "revision", "device", "dtype", "vision_tower"]), ODD | JSON, max_size=3
)


def check_spec(value: dict[str, Any]) -> None:
    """A model's spec is refused, or equals and hashes like one of the same fields."""
    spec = interp.ModelSpec(**{"id": "organism", **value})
    assert spec == interp.ModelSpec(**{"id": "organism", **value}) or any(
        one != one for one in value.values()
    )
