"""Features of sparse autoencoders against plain torch, hooks on an eager model, and scikit-learn."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import save_file
from sklearn.metrics import r2_score

import interp
from interp.errors import EditError, MapError, ModelError, SiteError
from interp.indicators import FeatureMap
from interp.report.feature_page import save_feature_page
from interp.tracing import AblateFeature, ClampFeature, Features, PatchResidual, ReconstructResidual, Residual
from studies.features import trained
from tests.tracing.reference_attention import greedy, layers_of

HIDDEN, N = 64, 3
KINDS = ("relu", "jumprelu", "topk", "gated")


def saved(
    folder: Any, kind: str, *, hidden: int = HIDDEN, n: int = 20, **settings: Any
) -> dict[str, torch.Tensor]:
    """SAELens' files of random weights, and the weights."""
    draw = torch.Generator().manual_seed(KINDS.index(kind))
    shapes = {
        "W_enc": (hidden, n),
        "W_dec": (n, hidden),
        "b_dec": (hidden,),
        "b_enc": (n,),
        "threshold": (n,),
    }
    shapes |= dict.fromkeys(("b_mag", "b_gate", "r_mag"), (n,))
    leave = {"jumprelu": ("b_mag", "b_gate", "r_mag"), "gated": ("b_enc", "threshold")}
    left_out = leave.get(kind, ("threshold", "b_mag", "b_gate", "r_mag"))
    weights = {k: torch.randn(s, generator=draw) / 4 for k, s in shapes.items() if k not in left_out}
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "sae_weights.safetensors")
    own = {
        "architecture": "standard" if kind == "relu" else kind,
        "metadata": {"hook_name": "blocks.1.hook_resid_post"},
    }
    own |= {"k": 5} if kind == "topk" else {}
    (folder / "cfg.json").write_text(json.dumps({**own, **settings}))
    return weights


def by_hand(w: dict[str, torch.Tensor], kind: str, x: torch.Tensor, centred: bool = True) -> torch.Tensor:
    """One position's activations, feature by feature."""
    given, found = x - w["b_dec"] if centred else x, []
    products = [float(given @ w["W_enc"][:, f]) for f in range(w["W_enc"].shape[1])]
    if kind == "gated":
        for f, product in enumerate(products):
            size = product * float(w["r_mag"][f].exp()) + float(w["b_mag"][f])
            found.append(max(size, 0.0) if product + float(w["b_gate"][f]) > 0 else 0.0)
        return torch.tensor(found)
    before = [product + float(w["b_enc"][f]) for f, product in enumerate(products)]
    least = sorted(before)[-5] if kind == "topk" else 0.0
    for f, value in enumerate(before):
        floor = float(w["threshold"][f]) if kind == "jumprelu" else least
        keeps = value > floor or (kind == "topk" and value >= floor)
        found.append(max(value, 0.0) if keeps else 0.0)
    return torch.tensor(found)


@pytest.mark.parametrize("kind", KINDS)
def test_saelens_files_follow_the_formulas(tmp_path, kind):
    weights = saved(tmp_path / "sae", kind)
    features = interp.load_features(tmp_path / "sae")
    assert (features.layer, features.activation, features.n_features) == (1, kind, 20)
    stream = torch.randn(2, 3, HIDDEN, generator=torch.Generator().manual_seed(9))
    found = features.encode(stream)
    wanted = torch.stack([by_hand(weights, kind, x) for x in stream.flatten(0, 1)]).unflatten(0, (2, 3))
    assert_allclose(found, wanted, atol=1e-5)
    assert 0 < int((found > 0).sum()) < found.numel()
    assert_allclose(features.encode(stream, [7, 2]), wanted[..., [7, 2]], atol=1e-5)
    assert_allclose(features.decode(found), wanted @ weights["W_dec"] + weights["b_dec"], atol=1e-4)
    assert isinstance(features.encode(stream.numpy()), np.ndarray)


def test_older_settings_and_rescaling_are_read(tmp_path):
    weights = saved(
        tmp_path / "a", "relu", apply_b_dec_to_input=False, hook_name="blocks.3.hook_resid_pre", metadata={}
    )
    features = interp.load_features(tmp_path / "a")
    x = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(1))
    assert features.layer == 2
    assert_allclose(features.encode(x), by_hand(weights, "relu", x, centred=False), atol=1e-5)
    saved(tmp_path / "b", "relu", normalize_activations="layer_norm")
    rescaled = interp.load_features(tmp_path / "b")
    wanted = by_hand(weights, "relu", (x - x.mean()) / (x.std() + 1e-5))
    assert_allclose(rescaled.encode(x), wanted, atol=1e-4)
    rebuilt = (wanted @ weights["W_dec"] + weights["b_dec"]) * x.std() + x.mean()
    assert_allclose(rescaled.decode(rescaled.encode(x), x), rebuilt, atol=1e-3)
    with pytest.raises(ModelError, match=r"rescales each position.*decode\(activations, stream\)"):
        rescaled.decode(rescaled.encode(x))


def test_qwen_scopes_rows_are_features_and_stay_negative(tmp_path):
    folder = tmp_path / "SAE-Res-Tiny-W1K-L0_5"
    weights = saved(tmp_path / "x", "topk")
    folder.mkdir()
    turned = {**weights, "W_enc": weights["W_enc"].T.contiguous(), "W_dec": weights["W_dec"].T.contiguous()}
    turned["b_enc"] = weights["b_enc"] - 100
    save_file(turned, folder / "layer2.sae.safetensors")
    features = interp.load_features(folder / "layer2.sae.safetensors")
    assert (features.layer, features.k, features.n_features) == (2, 5, 20)
    x = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(1))
    before = x @ weights["W_enc"] + turned["b_enc"]
    found = features.encode(x)
    assert_allclose(found[before.argsort()[-5:]], before.sort().values[-5:], atol=1e-5)
    assert int((found != 0).sum()) == 5
    assert interp.load_features(folder / "layer2.sae.safetensors", layer=4, k=2).k == 2


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "site": (
        {"metadata": {"hook_name": "blocks.1.hook_mlp_out"}},
        r"of 'blocks.1.hook_mlp_out', not of the residual",
    ),
    "transcoder": (
        {"architecture": "transcoder"},
        r"reads 'blocks.1.hook_resid_post' and writes None; only those of one layer's MLP",
    ),
    "temporal": (
        {"architecture": "temporal"},
        r"'temporal' is not read; known are standard, jumprelu.*skip_transcoder",
    ),
    "factor": (
        {"normalize_activations": "expected_average_only_in"},
        r"needs a factor that is not in the files",
    ),
    "no layer": ({"metadata": {}}, r"does not say after which layer.*layer="),
    "no such tensor": ({"architecture": "jumprelu"}, r"of this architecture has threshold; got W_dec"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_autoencoders_are_refused(tmp_path, case):
    settings, message = REFUSED[case]
    saved(tmp_path / "sae", "relu", **settings)
    with pytest.raises(ModelError, match=message):
        interp.load_features(tmp_path / "sae")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "layer1.sae.pt").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"is a pickle.*save_file\("):
        interp.load_features(tmp_path / "layer1.sae.pt")
    with pytest.raises(ModelError, match=r"does not exist.*Nothing is downloaded"):
        interp.load_features("Qwen/SAE-Res-Qwen3-8B")
    with pytest.raises(ModelError, match=r"holds no sae_weights.safetensors or model.safetensors"):
        interp.load_features(tmp_path)
    saved(tmp_path / "sae", "topk", k=None)
    with pytest.raises(ModelError, match=r"does not say how many features are active"):
        interp.load_features(tmp_path / "sae")
    with pytest.raises(ModelError, match=r"k is a whole number of at least 1 and at most 20; got 21"):
        interp.load_features(tmp_path / "sae", k=21)


@pytest.fixture
def features(tmp_path) -> Features:
    saved(tmp_path / "sae", "topk")
    return interp.load_features(tmp_path / "sae")


def formula(case: str, w: dict[str, torch.Tensor]) -> Any:
    """What a hook does to the stream of one sample's edited rows."""

    def change(rows: torch.Tensor) -> torch.Tensor:
        a = torch.stack([by_hand(w, "topk", x) for x in rows])
        rebuilt = a @ w["W_dec"] + w["b_dec"]
        error = rows - rebuilt if case in ("clamp", "ablate") else 0.0
        if case == "reconstruct":
            return rebuilt
        a[:, 3] = 0.0 if case == "ablate" else 2.5
        return a @ w["W_dec"] + w["b_dec"] + error

    return change


@pytest.mark.parametrize("steps", ["prefill", "all"])
@pytest.mark.parametrize("case", ["clamp", "ablate", "clamp without error", "reconstruct"])
def test_feature_edits_are_hooks_on_the_layer(mllm, eager, batch, features, tmp_path, case, steps):
    weights = saved(tmp_path / "sae", "topk")
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
    change = formula(case, weights)
    for i, tokens in enumerate(batch.tokens):
        image = torch.from_numpy(tokens.image)
        first = int(tokens.positions("after_image")[0])

        def hook(module: Any, given: Any, output: Any, image: Any = image, first: int = first) -> Any:
            stream = (output[0] if isinstance(output, tuple) else output).clone()
            at = image if steps == "prefill" else torch.arange(first, stream.shape[1])
            stream[0, at] = change(stream[0, at])
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        handle = layers_of(eager)[1].register_forward_hook(hook)
        reference = greedy(eager, batch.singles[i].inputs, N)
        handle.remove()
        for trace in traces:
            assert_allclose(trace.logits[i], reference.logits[0], atol=2e-5, rtol=1e-5)
            assert list(trace[i].ids) == reference.ids[: len(trace[i].ids)]


def test_ablating_an_inactive_feature_changes_no_bit(mllm, batch, tmp_path):
    weights = saved(tmp_path / "sae", "relu")
    weights["b_enc"][4] = -1000
    save_file(weights, tmp_path / "sae" / "sae_weights.safetensors")
    features = interp.load_features(tmp_path / "sae")
    plain = mllm.trace(batch)
    assert_array_equal(mllm.trace(batch, edits=[AblateFeature(features, 4)]).logits, plain.logits)
    present = int(features.read(mllm, batch.samples, progress=False).top_features(1).feature[0])
    assert (
        np.abs(mllm.trace(batch, edits=[AblateFeature(features, present)]).logits - plain.logits).max() > 1e-4
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda f: ClampFeature(f, 20, 1.0),
            r"feature is a whole number of at least 0 and at most 19; got 20",
        ),
        (lambda f: ClampFeature(f, [1, 1], 1.0), r"a list of different features"),
        (lambda f: ClampFeature(f, [1, 2], [1.0]), r"one number per feature, 2 here; got 1"),
        (lambda f: ClampFeature(f, 1, np.inf), r"value is a finite number"),
        (
            lambda f: AblateFeature(f, 1, "text", "decode"),
            r'queries that name rows of generated tokens, "last"',
        ),
    ],
)
def test_edits_of_no_sense_are_refused(features, make, message):
    with pytest.raises(EditError, match=message):
        make(features)


def test_features_of_another_model_are_refused(mllm, batch, tmp_path):
    saved(tmp_path / "sae", "relu", hidden=32)
    other = interp.load_features(tmp_path / "sae")
    with pytest.raises(
        EditError, match=r"stream has 64 values at each position; the features of the edit are of 32"
    ):
        mllm.trace(batch, edits=[AblateFeature(other, 1)])
    with pytest.raises(ModelError, match=r"residual stream with 32 values.*another model"):
        other.read(mllm, batch.samples, progress=False)
    deep = Features(other.encoder, other.encoder_bias, other.decoder, other.decoder_bias, 9)
    with pytest.raises(SiteError, match=r"got layer 9"):
        deep.read(mllm, batch.samples, progress=False)


@pytest.fixture(scope="module")
def organism() -> interp.Mllm:
    return interp.load("organism")


@pytest.fixture(scope="module")
def scenes() -> Any:
    return interp.data.bundled("natural")[:12]


@pytest.fixture(scope="module")
def learned(organism, scenes) -> Features:
    return trained(organism, scenes[:6], layer=0, k=8, width=128, steps=150)


def test_reads_maps_and_reports_are_plain_torchs(organism, scenes, learned, tmp_path):
    rest = scenes[6:]
    found = learned.read(organism, rest, batch_size=4, progress=False)
    maps = FeatureMap(learned, 5)(organism, rest, progress=False)
    reports = learned.fidelity(organism, rest, positions="image", progress=False)
    streams, rebuilt = [], []
    for place, sample in enumerate(rest):
        batch = organism.encode([sample])
        with torch.no_grad():
            states = organism.hf(**batch.inputs, output_hidden_states=True).hidden_states
        stream = states[1][0, torch.from_numpy(batch.tokens[0].image)]
        before = (stream - learned.decoder_bias) @ learned.encoder + learned.encoder_bias
        smallest = before.sort(dim=1).values[:, [-8]]
        wanted = torch.where(before >= smallest, before.clamp(min=0), 0)
        assert_allclose(found[place], wanted, atol=1e-4)
        assert_allclose(maps[place], wanted[:, 5], atol=1e-4)
        assert_array_equal(found[place]["position"], batch.tokens[0].image)
        streams.append(stream.numpy())
        rebuilt.append((wanted @ learned.decoder + learned.decoder_bias).numpy())
    pooled = r2_score(np.concatenate(streams), np.concatenate(rebuilt), multioutput="variance_weighted")
    assert reports.explained_variance == pytest.approx(pooled, abs=1e-4)
    assert 0.5 < pooled < 1
    own = [r2_score(a, b, multioutput="variance_weighted") for a, b in zip(streams, rebuilt, strict=True)]
    assert_allclose(reports.samples.explained_variance, own, atol=1e-4)
    assert 7 < reports.l0 <= 8
    target = interp.Target("greedy")
    edit = PatchResidual([0], "image", [one[None] for one in rebuilt])
    scores = [organism.score(rest, target, edits=edits, progress=False).values for edits in ([edit], [])]
    assert_allclose(reports.samples.change, scores[0] - scores[1], atol=1e-3)
    frame = found.to_dataframe()
    best = frame[frame.feature == 5].groupby("sample").activation.max().sort_values(ascending=False)
    top = found.top_samples(5, n=3)
    assert top.place.tolist() == best.index[:3].tolist()
    assert_allclose(top.value, best[:3])
    page = save_feature_page(found, 5, tmp_path / "page.html", organism=True).read_text("utf-8")
    assert "Feature 5" in page
    assert "model organism" in page
    values = np.concatenate([np.asarray(one) for one in maps])
    assert 0 < (values > 0).mean() < 0.4
    assert f"and at {100 * (values > 0).mean():.1f} % of all their image tokens" in " ".join(page.split())
    with pytest.raises(MapError, match=r'of other positions. Read positions="image"'):
        save_feature_page(
            learned.read(organism, rest, positions="all", progress=False), 5, tmp_path / "p.html"
        )


def test_equal_weights_are_equal_features(features, tmp_path):
    saved(tmp_path / "again", "topk")
    again = interp.load_features(tmp_path / "again")
    assert ClampFeature(again, 1, 2.0) == ClampFeature(features, 1, 2.0)
    assert again != interp.load_features(tmp_path / "again", layer=0)
    said = ClampFeature(again, 1, 2.0).to_dict()["clamp_feature"]
    assert said["features_sha256"] == features.digest
    assert json.dumps(said)


def test_residual_reads_come_after_the_edit(mllm, batch, features):
    found = mllm.trace(batch, reads=[Residual([1], "image")], edits=[ReconstructResidual(features, "image")])
    plain = mllm.trace(batch, reads=[Residual([1], "image")])
    stream = plain[0].residual.values[0]
    assert_allclose(found[0].residual[0], features.decode(features.encode(stream)), atol=1e-5)
