# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of circuits, features, transcoders and marks of yes-or-no questions. The calls reach it as `ci`."""

from __future__ import annotations

import json
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import interp
from interp.conformance.tiny import tiny
from interp.data import Samples
from interp.inputs.sample import Sample
from interp.methods import Plain
from interp.study import Benchmark, BenchmarkResult
from interp.tracing.circuits import EdgePass, lens_layers
from interp.tracing.cost import Meter

ROWS: list[tuple[str, str, str]] = [
    # circuits
    ("ci.scenes_circuit(3)", "or a smaller n_images", "ci.scenes_circuit(2)"),
    ("ci.scenes_circuit(3, n=2)", "Give more samples", "ci.scenes_circuit(3, n=4)"),
    ("interp.Circuit(data=D, graph=[('image',)])", "CircuitResult.graph(n)", "interp.Circuit(data=D, graph=ci.scenes_circuit(2).graph(3))"),
    ("ci.split('qwen2_5_vl')", 'Take executor="transformers"', "interp.Circuit(data=D, executor='transformers')"),
    ("ci.edges('what is there ?')", "Use images of the same size", "ci.edges('where is the nodule ?')"),
    # features and transcoders
    ("interp.load_features(ci.folder())", "Give the folder of one autoencoder", "interp.load_features(ci.folder(transcoder=True))"),
    ("interp.load_features(ci.folder(transcoder=True, hook_name='blocks.0.ln2.hook_normalized'))", 'load_features(path, site="mlp")', "interp.load_features(ci.folder(transcoder=True, hook_name='blocks.0.ln2.hook_normalized'), site='mlp')"),
    ("interp.load_features(ci.folder(transcoder=True, architecture='temporal'))", "make interp.Features from its arrays", "ci.made()"),
    ("ci.made(site='mlp', centred=True)", 'centred=False and scaling="none"', "ci.made(site='mlp', centred=False, scaling='none')"),
    ("ci.made(skip=np.eye(64))", 'site="mlp"', "ci.made(skip=np.eye(64), site='mlp')"),
    ("ci.made(skip=np.eye(64), site='mlp').decode(np.ones((1, 5)))", "decode(activations, stream)", "ci.made(skip=np.eye(64), site='mlp').decode(np.ones((1, 5)), np.ones((1, 64)))"),
    ("ci.made(scaling='layer_norm').decode(np.ones((1, 5)))", "decode(activations, stream)", "ci.made(scaling='layer_norm').decode(np.ones((1, 5)), np.ones((1, 64)))"),
    ("ci.made(activation='topk')", "takes k", "ci.made(activation='topk', k=2)"),
    ("ci.made().read(5, [one])", "interp.wrap", "ci.made().read(interp.wrap(*tiny('llava')), [one], progress=False)"),
    ("interp.AblateFeature(5, 1)", "interp.load_features(path)", "interp.AblateFeature(interp.load_features(ci.folder(transcoder=True)), 1)"),
    ("interp.indicators.FeatureMap(5, 1)", "interp.load_features(path)", "interp.indicators.FeatureMap(interp.load_features(ci.folder(transcoder=True)), 1)"),
    ("interp.wrap(*tiny('qwen3_vl_moe')).trace([one], reads=[interp.MLP()])", "use interp.Residual", "interp.wrap(*tiny('qwen3_vl_moe')).trace([one], reads=[interp.Residual()])"),
    # marks of yes-or-no questions
    ("ci.marked('left', 'right').yes_no()", "interp.data.presence_questions", "ci.marked(*(sample.answer for sample in interp.data.presence_questions(ci.labelled()))).yes_no()"),
    ("ci.marked('yes', 'no').yes_no(5)", '"negatives"', "ci.marked('yes', 'no').yes_no('negatives')"),
    ("interp.data.presence_questions(ci.labelled()[:1])", "samples of more pictures", "interp.data.presence_questions(ci.labelled())"),
]  # fmt: skip
"""(a call that fails, words of its message, a call that follows them)"""

ELSEWHERE: dict[str, str] = {
    "a graph is of one run": "needs a grid of circuits; the message says to take the result of one study",
    "circuits need the model on this machine": "needs a server; the message names the argument to leave out",
    "the nodes do not add up to the model": "tests/tracing/test_circuits.py reads qwen3_vl's; its advice is a dtype",
    "{…} does not say after which layer": "tests/tracing/sparse_coding/test_features.py::test_other_autoencoders_are_refused",
    "{…} does not say how many features": "tests/tracing/sparse_coding/test_features.py::test_other_files_are_refused",
    "{…} has no cfg.json beside it": "tests/tracing/sparse_coding/test_features.py reads Qwen-Scope's files",
    "{…} is a pickle or an archive": "tests/tracing/sparse_coding/test_features.py::test_other_files_are_refused",
    "type {…} of architecture": "tests/tracing/sparse_coding/test_transcoders.py::test_other_sites_are_refused",
    "MLPs can be read only on this machine": "tests/tracing/remote/test_remote.py::test_work_at_mlps_stays_here",
    "edits through transcoders run on this machine only": "tests/tracing/remote/test_remote.py::test_work_at_mlps_stays_here",
    "the page shows maps over image tokens": "tests/tracing/sparse_coding/test_features.py::test_reads_maps_and_reports_are_plain_torchs",
    "presence questions need samples of one image": "tests/data/test_questions.py",
}  # the beginning of a message: the test that makes it appear


@cache
def organism() -> interp.Mllm:
    """The bundled model, open."""
    return interp.load("organism")


def scenes_circuit(n_images: int, n: int = 3) -> Any:
    """A circuit against a mean, over scenes of one question and two answers."""
    natural = interp.data.bundled("natural")
    first = natural[0]
    asked = [one for one in natural if one.question == first.question and one.answer != first.answer]
    study = interp.Circuit(
        model=organism(),
        data=Samples([first, *asked][:n]),
        against="mean",
        n_images=n_images,
        sizes=[1],
        exact=0,
    )
    return study.run(tempfile.mkdtemp(), progress=False)


def split(family: str) -> Any:
    """A family's layers as TransformerLens runs them, by head."""
    return lens_layers(interp.wrap(*tiny(family), family))


def edges(question: str) -> Any:
    """A pass beside one with this question; two of the same length are told apart by their answers."""
    mllm = organism()
    one = interp.data.bundled("natural")[0]
    other = next(
        s for s in interp.data.bundled("natural") if s.question == one.question and s.answer != one.answer
    )
    asked = other if question.startswith("where") else other.replace(question=question)
    with Meter(mllm.device) as meter:
        return EdgePass.of(mllm, mllm.encode([one]), mllm.encode([asked]), "image", meter)


def made(**changes: Any) -> interp.Features:
    """Features of random weights."""
    draw = np.random.default_rng(0).normal
    sizes = {"encoder": (64, 5), "encoder_bias": 5, "decoder": (5, 64), "decoder_bias": 64}
    weights = {name: torch.from_numpy(np.float32(draw(size=size))) for name, size in sizes.items()}
    return interp.Features(**{**weights, "layer": 0, **changes})


def folder(transcoder: bool = False, **settings: Any) -> Path:
    """An empty folder, or SAELens' files of a transcoder."""
    path = Path(tempfile.mkdtemp())
    if transcoder:
        own = made()
        names = {
            "W_enc": own.encoder,
            "b_enc": own.encoder_bias,
            "W_dec": own.decoder,
            "b_dec": own.decoder_bias,
        }
        save_file(names, path / "sae_weights.safetensors")
        hooks = {"hook_name": "blocks.0.mlp.hook_in", "hook_name_out": "blocks.0.hook_mlp_out"}
        (path / "cfg.json").write_text(json.dumps({"architecture": "transcoder", **hooks, **settings}))
    return path


def marked(*answers: str) -> BenchmarkResult:
    """A benchmark of questions with these answers, on a tiny model."""
    pictures = [np.full((40, 40, 3), 20 * i, np.uint8) for i in range(len(answers))]
    data = Samples(
        [Sample(one, "is it red ?", answer=answer) for one, answer in zip(pictures, answers, strict=True)],
        "asked",
    )
    study = Benchmark(data=data, model=interp.wrap(*tiny("llava")), method=Plain(), max_new_tokens=1)
    return study.run(tempfile.mkdtemp(), progress=False)


def labelled() -> Samples:
    """Two pictures with a label each."""
    return Samples(
        [
            Sample(np.full((40, 40, 3), 50 * i, np.uint8), "?", [(1, 1, 9, 9)], meta={"label": label})
            for i, label in enumerate(("liver", "spleen"))
        ]
    )


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    return {"ci": sys.modules[__name__]}
