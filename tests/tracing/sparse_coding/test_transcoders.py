"""Transcoders: four layouts against one formula, reads and edits against hooks, fidelity against scikit-learn."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import save_file
from sklearn.metrics import r2_score
from torch import Tensor

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError, SiteError
from interp.indicators import FeatureMap
from interp.tracing import MLP, AblateFeature, ClampFeature, Features, ReconstructResidual, Residual, wrap
from studies.features import trained
from tests.tiny import uneven_samples
from tests.tracing.reference_attention import greedy, layers_of

HIDDEN, N_FEATURES, N = 64, 20, 3
HOOKS = "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
LAYOUTS = ("saelens", "saelens skip", "gemma scope 2", "circuit tracer")


def weights() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(4)
    sizes = {"encoder": (HIDDEN, N_FEATURES), "decoder": (N_FEATURES, HIDDEN), "skip": (HIDDEN, HIDDEN)}
    vectors = {"encoder_bias": N_FEATURES, "decoder_bias": HIDDEN, "threshold": N_FEATURES}
    found = {name: torch.randn(size, generator=draw) / 4 for name, size in sizes.items()}
    return found | {name: torch.rand(n, generator=draw) / 2 for name, n in vectors.items()}


def by_hand(x: Tensor, *, jumps: bool, skips: bool) -> tuple[Tensor, Tensor]:
    """One position's activations and output, feature by feature."""
    w, found = weights(), []
    for f in range(N_FEATURES):
        value = float(x @ w["encoder"][:, f]) + float(w["encoder_bias"][f])
        found.append(value if value > (float(w["threshold"][f]) if jumps else 0.0) else 0.0)
    activations = torch.tensor(found)
    output = activations @ w["decoder"] + w["decoder_bias"]
    return activations, output + (x @ w["skip"] if skips else 0)


def saved(root: Path, layout: str, **settings: Any) -> Path:
    """The same weights in a published layout; the path that is loaded."""
    w, root = weights(), root / "files"
    root.mkdir(exist_ok=True)
    plain = {"b_enc": w["encoder_bias"], "b_dec": w["decoder_bias"]}
    jumps = {"threshold": w["threshold"]}
    if layout.startswith("saelens"):
        skip = {"W_skip": w["skip"].T.contiguous()} if "skip" in layout else {}
        kind = "skip_transcoder" if skip else "jumprelu_transcoder"
        own = {"W_enc": w["encoder"], "W_dec": w["decoder"], **plain, **skip, **({} if skip else jumps)}
        hooks = {"hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"}
        cfg = {"architecture": kind, "apply_b_dec_to_input": False, "metadata": hooks}
        (root / "cfg.json").write_text(json.dumps({**cfg, **settings}))
        save_file(own, root / "sae_weights.safetensors")
        return root
    if layout == "gemma scope 2":
        place = "model.layers.1.{}_feedforward_layernorm.output"
        cfg = {
            "hf_hook_point_in": place.format("pre"), "hf_hook_point_out": place.format("post"),
            "architecture": "jump_relu", "affine_connection": True, "type": "transcoder",
        }  # fmt: skip
        (root / "config.json").write_text(json.dumps({**cfg, **settings}))
        own = {"w_enc": w["encoder"], "w_dec": w["decoder"], "affine_skip_connection": w["skip"]}
        save_file({**own, **plain, **jumps}, root / "params.safetensors")
        return root
    hooks = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "hook_mlp_out", **settings}
    (root / "config.yaml").write_text("".join(f'{name}: "{value}"\n' for name, value in hooks.items()))
    own = {"W_enc": w["encoder"].T.contiguous(), "W_dec": w["decoder"], "W_skip": w["skip"].T.contiguous()}
    own["activation_function.threshold"] = w["threshold"]
    save_file({**own, **plain}, root / "layer_1.safetensors")
    return root / "layer_1.safetensors"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts_follow_one_formula(tmp_path, layout):
    features = interp.load_features(saved(tmp_path, layout))
    assert (features.site, features.layer, features.n_features) == ("mlp", 1, N_FEATURES)
    x = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(2))
    kind = {"jumps": layout != "saelens skip", "skips": layout != "saelens"}
    for own in x:
        activations, output = by_hand(own, **kind)
        assert_allclose(features.encode(own), activations, atol=1e-5)
        assert_allclose(features.decode(features.encode(own), own), output, atol=1e-4)
    assert 0 < int((features.encode(x) != 0).sum()) < 5 * N_FEATURES
    assert "MLP of layer 1" in repr(features)
    if kind["skips"]:
        with pytest.raises(
            ModelError, match=r"adds a linear map of its input.*decode\(activations, stream\)"
        ):
            features.decode(features.encode(x))


def test_autoencoders_of_gemma_scope_2_are_read(tmp_path):
    path = saved(
        tmp_path, "gemma scope 2", type="sae",
        hf_hook_point_in="model.layers.2.output", hf_hook_point_out="model.layers.2.output",
    )  # fmt: skip
    features = interp.load_features(path)
    assert (features.site, features.layer, features.skip) == ("residual", 2, None)
    x = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(2))
    activations, output = by_hand(x, jumps=True, skips=False)
    assert_allclose(features.encode(x), activations, atol=1e-5)
    assert_allclose(features.decode(activations), output, atol=1e-4)


def test_square_matrices_are_a_transcoders_where_declared(tmp_path):
    draw = torch.Generator().manual_seed(5)
    w = {name: torch.randn((HIDDEN, HIDDEN), generator=draw) for name in ("W_enc", "W_dec")}
    path = tmp_path / "layer_1.safetensors"
    save_file({**w, "b_enc": torch.zeros(HIDDEN), "b_dec": torch.zeros(HIDDEN)}, path)
    x, said = torch.randn(HIDDEN, generator=draw), {"layer": 1}
    plain = interp.load_features(path, **said, k=HIDDEN)  # Qwen-Scope has no file beside its weights
    assert (plain.site, plain.activation) == ("residual", "topk")
    assert_allclose(plain.decode(x), w["W_dec"] @ x, atol=1e-4)
    named = interp.load_features(path, **said, site="mlp")
    (tmp_path / "config.yaml").write_text(HOOKS)
    for coder in (named, interp.load_features(path, **said)):
        assert coder.site == "mlp"
        assert_allclose(coder.decode(x), x @ w["W_dec"], atol=1e-4)


def test_an_autoencoder_is_hashed_as_before_transcoders():
    """Runs that are stored are found by the hash of their features."""
    w = weights()
    coder = interp.Features(w["encoder"], w["encoder_bias"], w["decoder"], w["decoder_bias"], layer=1)
    hashed = hashlib.sha256()
    for name in ("encoder", "encoder_bias", "decoder", "decoder_bias"):
        hashed.update(f"{name} {w[name].shape}".encode() + w[name].contiguous().numpy().tobytes())
    rest = "layer 1,activation relu,threshold None,k None,gate_bias None,log_scale None,centred False,rectified True"
    hashed.update("".join([*rest.split(","), "scaling none"]).encode())
    assert coder.digest == hashed.hexdigest()
    mlp = interp.Features(
        w["encoder"], w["encoder_bias"], w["decoder"], w["decoder_bias"], layer=1, site="mlp"
    )
    assert len({coder.digest, mlp.digest, replace(mlp, skip=w["skip"]).digest}) == 3


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "before the norm": (
        "circuit tracer",
        {"feature_input_hook": "hook_resid_mid"},
        r"reads 'blocks.0.hook_resid_mid'.*site=\"mlp\"",
    ),
    "before the gain": (
        "saelens",
        {"hook_name": "blocks.1.ln2.hook_normalized"},
        r"reads 'blocks.1.ln2.hook_normalized'",
    ),
    "another layer": ("saelens", {"hook_name_out": "blocks.2.hook_mlp_out"}, r"only those of one layer's"),
    "another type": ("gemma scope 2", {"type": "crosscoder"}, r"type 'crosscoder' of architecture"),
    "an attention": (
        "gemma scope 2",
        {"type": "sae", "hf_hook_point_in": "model.layers.1.self_attn.o_proj.input"},
        r"not of the residual stream",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_sites_are_refused(tmp_path, case):
    layout, settings, message = REFUSED[case]
    path = saved(tmp_path, layout, **settings)
    with pytest.raises(ModelError, match=message):
        interp.load_features(path)
    if "site=" in message:
        assert interp.load_features(path, site="mlp").layer == 1


def test_what_no_transcoder_has_is_refused(tmp_path, unchecked):
    w = {name: value for name, value in weights().items() if name != "threshold"}
    with pytest.raises(
        ModelError, match=r"not subtracted from the input.*got centred=True.*Give centred=False"
    ):
        Features(**w, layer=0, site="mlp", centred=True)
    with pytest.raises(
        ModelError, match=r"skip is \(hidden, hidden\), and only a transcoder.*site='residual'"
    ):
        Features(**w, layer=0)
    with pytest.raises(ModelError, match=r"site is 'mlp'; got 'head'"):
        interp.load_features(saved(tmp_path, "saelens"), site="head")


def seen_by_hooks(model: Any, layer: Any, out: Any, inputs: Any) -> tuple[Tensor, Tensor]:
    kept: dict[str, Tensor] = {}
    handles = [
        layer.mlp.register_forward_pre_hook(lambda _, given: kept.update(input=given[0][0])),
        out.register_forward_hook(lambda _, __, output: kept.update(output=output[0])),
    ]
    with torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    return kept["input"], kept["output"]


@pytest.mark.parametrize("family", ["llava", "gemma3"])
def test_reads_are_what_the_mlp_is_given_and_adds(family):
    """In a padded batch, through both executors; the stream's own sum says what a layer adds."""
    model = wrap(*tiny(family), family)
    batch = model.encode(uneven_samples())
    reads = [MLP([1], "all", "input"), MLP([1], "all", "output")]
    for mllm in (model, model.using("source")):
        found = mllm.trace(batch, reads=reads)
        for one, single in zip(found, batch.singles, strict=True):
            layer = model.adapter.layers(model.hf)[1]
            out = layer.mlp if family == "llava" else layer.post_feedforward_layernorm
            wanted = seen_by_hooks(model.hf, layer, out, single.inputs)
            for read, values, name in zip(one.reads, wanted, ("mlp_input", "mlp_output"), strict=True):
                assert read.dims == ("layer", "position", "hidden")
                assert read.name == name
                assert_allclose(read[0], values, atol=2e-5)


def test_layers_with_experts_have_no_mlp_to_read():
    mllm = wrap(*tiny("qwen3_vl_moe"), "qwen3_vl_moe")
    with pytest.raises(SiteError, match=r"layers with one MLP; layer \d has experts"):
        mllm.trace(uneven_samples()[:1], reads=[MLP("all")])


def change(case: str, features: Features) -> Any:
    """What a hook puts in the place of an MLP's output at the edited rows, from its input there."""

    def of(given: Tensor, output: Tensor) -> Tensor:
        a = torch.stack([by_hand(x, jumps=True, skips=True)[0] for x in given])
        skipped = given @ weights()["skip"]
        rebuilt = a @ features.decoder + features.decoder_bias + skipped
        error = output - rebuilt if case in ("clamp", "ablate") else 0.0
        if case != "reconstruct":
            a[:, 3] = 0.0 if case == "ablate" else 2.5
        return a @ features.decoder + features.decoder_bias + skipped + error

    return of


@pytest.mark.parametrize("steps", ["prefill", "all"])
@pytest.mark.parametrize("case", ["clamp", "ablate", "clamp without error", "reconstruct"])
def test_edits_are_hooks_on_the_mlp(mllm, eager, batch, tmp_path, case, steps):
    features = interp.load_features(saved(tmp_path, "circuit tracer"))
    queries = "image" if steps == "prefill" else ["after_image", "last"]
    edit = {
        "clamp": lambda: ClampFeature(features, 3, 2.5, queries, steps),
        "ablate": lambda: AblateFeature(features, 3, queries, steps),
        "clamp without error": lambda: ClampFeature(features, [3], [2.5], queries, steps, keep_error=False),
        "reconstruct": lambda: ReconstructResidual(features, queries, steps),
    }[case]()
    traces = [
        mllm.trace(batch, edits=[edit], generate=N),
        mllm.using("source").trace(batch, edits=[edit], generate=N),
        mllm.trace(mllm.prefix(batch), edits=[edit], generate=N),
    ]
    changed = change(case, features)
    for i, tokens in enumerate(batch.tokens):
        image = torch.from_numpy(tokens.image.copy())
        first = int(tokens.positions("after_image")[0])

        def hook(module: Any, given: Any, output: Tensor, image: Any = image, first: int = first) -> Tensor:
            at = image if steps == "prefill" else torch.arange(first, output.shape[1])
            output = output.clone()
            output[0, at] = changed(given[0][0, at], output[0, at])
            return output

        handle = layers_of(eager)[1].mlp.register_forward_hook(hook)
        reference = greedy(eager, batch.singles[i].inputs, N)
        handle.remove()
        for trace in traces:
            assert_allclose(trace.logits[i], reference.logits[0], atol=1e-4)
            assert list(trace[i].ids) == reference.ids[: len(trace[i].ids)]


def test_an_edit_that_changes_nothing_leaves_every_bit(mllm, batch):
    w = {name: value for name, value in weights().items() if name != "threshold"}
    w["encoder_bias"][4] = -1000
    features = Features(**w, layer=1, site="mlp")
    plain = mllm.trace(batch)
    assert_array_equal(mllm.trace(batch, edits=[AblateFeature(features, 4)]).logits, plain.logits)


@pytest.fixture(scope="module")
def organism() -> interp.Mllm:
    return interp.load("organism")


def test_a_trained_transcoder_is_plain_torchs(organism):
    """On half the scenes it is trained, on others measured: against scikit-learn, and a hook for the answer."""
    scenes = interp.data.bundled("natural")[:12]
    learned = trained(organism, scenes[:6], layer=1, k=8, width=128, steps=150, site="mlp")
    rest = scenes[6:]
    layer = organism.adapter.layers(organism.hf)[1]
    found = learned.read(organism, rest, progress=False)
    report = learned.fidelity(organism, rest, positions="image", progress=False)
    maps = FeatureMap(learned, 5)(organism, rest, progress=False)
    written, rebuilt = [], []
    for place, sample in enumerate(rest):
        batch = organism.encode([sample])
        image = torch.from_numpy(batch.tokens[0].image.copy())
        given, output = (one[image] for one in seen_by_hooks(organism.hf, layer, layer.mlp, batch.inputs))
        before = given @ learned.encoder + learned.encoder_bias
        wanted = torch.where(before >= before.sort(dim=1).values[:, [-8]], before.clamp(min=0), 0)
        assert_allclose(found[place], wanted, atol=1e-4)
        assert_allclose(maps[place], wanted[:, 5], atol=1e-4)
        again = wanted @ learned.decoder + learned.decoder_bias
        written.append(output.numpy())
        rebuilt.append(again.numpy())

        def hook(module: Any, args: Any, output: Tensor, at: Tensor = image, new: Tensor = again) -> Tensor:
            output = output.clone()
            output[0, at] = new
            return output

        handle = layer.mlp.register_forward_hook(hook)
        with torch.no_grad():
            logits = organism.hf(**batch.inputs).logits[0, -1]
        handle.remove()
        edit = ReconstructResidual(learned, "image")
        assert_allclose(organism.trace(batch, edits=[edit]).logits[0], logits, atol=1e-3)
    pooled = r2_score(np.concatenate(written), np.concatenate(rebuilt), multioutput="variance_weighted")
    assert report.explained_variance == pytest.approx(pooled, abs=1e-4)
    assert 0.3 < pooled < 1
    assert 7 < report.l0 <= 8


def test_reads_after_an_edit_see_it(mllm, batch, tmp_path):
    features = interp.load_features(saved(tmp_path, "circuit tracer"))
    reads = [*features.reads("image"), Residual([1], "image")]
    plain, edited = (
        mllm.trace(batch, reads=reads, edits=edits)
        for edits in ([], [ReconstructResidual(features, "image")])
    )
    for before, after in zip(plain, edited, strict=True):
        given = before.reads[0].values[0]
        assert_allclose(after.reads[1][0], features.decode(features.encode(given), given), atol=1e-5)
        gained = after.reads[1].values - before.reads[1].values
        assert_allclose(after.reads[2].values - before.reads[2].values, gained, atol=1e-4)
