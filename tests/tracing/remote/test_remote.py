"""Models on an NDIF server, against the same models here; the server is another process, over HTTP and a websocket."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import numpy as np
import pytest
import torch

import interp
from interp import (
    AblateHeads,
    AddResidual,
    Boost,
    Decoding,
    Knockout,
    Mllm,
    PatchResidual,
    Residual,
    Rows,
    Site,
    Target,
    indicators,
)
from interp.errors import EditError, ModelError, ServerError
from interp.tracing.circuits import check_layers
from interp.tracing.derived.ov_circuits import copying_scores
from interp.tracing.layers.layer_plan import Recorder
from interp.tracing.lens.lens import ServedLens
from interp.tracing.remote.connection import Connection, SourcePickler
from interp.tracing.remote.job_passes import job_on_device
from tests.remote.alike import (
    EVERY,
    READS,
    REMOVALS,
    alike,
    alike_in_all,
    differentiated,
    guided_alike,
    like,
    mapped_alike,
    patched_alike,
    read_alike,
    removed_alike,
)
from tests.remote.serving import Serving, opened, samples, serving, settings

PROMPT = interp.Prompt("is {question} a", system="be brief")
FAMILIES = ("qwen2_5_vl", "gemma3", "idefics3", "llava")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(["llava"], tmp_path_factory.mktemp("served")) as found, settings(found.address):
        yield found


@pytest.fixture(scope="module")
def both(server: Serving) -> tuple[Mllm, Mllm]:
    return opened(server.folders["llava"])


@pytest.fixture(autouse=True)
def _no_fault(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "server" in request.fixturenames:
        request.getfixturevalue("server").fault()


def test_a_pass_there_equals_one_here(both):
    alike(*both)


def test_maps_there_equal_those_here(both):
    mapped_alike(*both, of=("embeddings",))


def test_guidance_runs_there_in_the_same_passes(both):
    guided_alike(*both, generate=2)


def test_the_stream_is_read_there_as_here(both):
    read_alike(*both)


def test_removals_run_there_several_variants_a_job(both, server):
    far, near = both
    n_before = len(server.sizes())
    removed_alike(far, near, REMOVALS[:1], [Target("yes")])
    sizes = server.sizes()[n_before:]
    assert len(sizes) == 1 + 2  # the plain value, and four variants that remove something, three at a time
    assert max(one["result"] for one in sizes) < 3000  # values alone, and torch's own frame


@pytest.mark.slow
def test_every_removal_there_equals_one_here(both):
    removed_alike(*both)
    patched_alike(*both)
    for indicator in (indicators.TokenKnockout(), indicators.RandomMasks(n=20, keep=0.7)):
        mine, theirs = (indicator(mllm, samples(1))[0] for mllm in both)
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=4e-6)


def towers_alike(far: Mllm, near: Mllm) -> None:
    """Rows of the vision tower, read and edited, while tokens are generated."""
    site = Site(layers=[0, 1], tower="vision", queries="all", keys="all")
    edits = [Boost(Site(layers=[0], tower="vision", queries="all", keys="all"), 0.5)]
    given = {"reads": [Rows(site), READS[0]], "edits": edits, "generate": 2}
    like(far.trace(samples(), **given), near.using("source").trace(samples(), **given))


def test_the_vision_tower_is_read_and_edited_there(both):
    towers_alike(*both)


def test_vicrop_takes_its_gradients_there(both):
    method = interp.methods.ViCrop(map="pure_grad", base=0.4)
    mine, theirs = (method.crop(mllm, samples(1))[0] for mllm in both)
    np.testing.assert_allclose(mine.map, theirs.map, rtol=0, atol=1e-6 * float(theirs.map.max()))
    assert mine.box == theirs.box
    assert float(theirs.map.max()) > 0


def test_what_the_stream_needs_is_checked_first(both):
    far, _ = both
    bare = ServedLens(replace(far, server=replace(far.server, norm=None)))
    for call in (lambda: bare.logit_lens(samples()), lambda: bare.attribution(samples())):
        with pytest.raises(ModelError, match="has no `norm` beside its layers"):
            call()
    other = torch.nn.LayerNorm(4)
    normed = ServedLens(replace(far, server=replace(far.server, norm=SimpleNamespace(_module=other))))
    with pytest.raises(ModelError, match="LayerNorm is not an RMS norm"):
        normed.attribution(samples())
    unknown = ServedLens(replace(far, hf=torch.nn.Identity()))
    with pytest.raises(
        ModelError, match="does not know how the layers of Identity add to the residual stream"
    ):
        unknown.attribution(far.encode(samples()))


def test_gradients_there_equal_those_here(both):
    far, near = both
    differentiated(far, near, n_targets=1)
    torch.testing.assert_close(far.embeddings(far.encode(samples())), near.embeddings(near.encode(samples())))


def test_only_what_was_asked_for_comes_back(both, server):
    far, _ = both
    far.trace(samples(1), reads=[Rows(Site(layers=[1], heads=[0], queries="last"))])
    few = server.sizes()[-1]["result"]
    far.trace(samples(1), reads=[Rows(Site(layers=[1], heads=[0], queries="all", keys="all"))])
    length = far.encode(samples(1)).tokens[0].length
    assert server.sizes()[-1]["result"] - few > 4 * length * (length - 20)
    assert few < 4 * far.vocabulary_size + 4 * length + 3000  # the logits, one row, and torch's own frame


@pytest.mark.slow
def test_a_function_of_the_users_runs_there(both):
    def halved(values, cells):
        return torch.where(cells, values / 2, values)

    given = {"edits": [interp.Apply(Site(layers=[1]), halved)], "reads": READS}
    like(both[0].trace(samples(), **given), both[1].trace(samples(), **given))


def test_an_error_of_an_edit_keeps_its_kind(both):
    def wrong(values, cells):
        return values.new_zeros(3, 3, 3, 3, 3)

    with pytest.raises(EditError, match=r"wrong must return values that broadcast"):
        both[0].trace(samples(), edits=[interp.Apply(Site(layers=[1]), wrong)])


def test_a_job_is_collected_later_by_its_id(both):
    far, near = both
    drawn = {"seed": 2, "decoding": Decoding(1.0, top_k=20)}
    edits = [Knockout(Site(layers=[1], queries="after_image"))]
    options = {"reads": READS, "generate": 3, "prompt": PROMPT, "edits": edits, **drawn}
    job = far.submit(samples(), **options)
    again = replace(far)  # as in another process, which has the id alone
    like(again.collect(job.id, samples(), **options, timeout=60), near.trace(samples(), **options))
    assert job.state == "COMPLETED"
    like(job.collect(), near.trace(samples(), **options))
    with pytest.raises(ModelError, match="was sent with other samples, reads, edits"):
        far.collect(job.id, samples(), reads=READS[:1], generate=3)
    with pytest.raises(
        ServerError, match=r"job nowhere is not done on .* after 0 s \(state: not known there\)"
    ):
        far.collect("nowhere", samples(), timeout=0)


def test_a_broken_connection_is_tried_again(both, server):
    far, near = both
    server.fault(drop=2)
    like(far.trace(samples()), near.trace(samples()))
    server.fault(drop=3)
    with pytest.raises(ServerError, match=r"was lost while job \w+ was RUNNING .*Finished work is stored"):
        far.trace(samples())


def test_faults_of_a_server_are_told(both, server):
    far, _ = both
    server.fault(error="Traceback\nRuntimeError: CUDA error: device-side assert")
    with pytest.raises(ServerError, match=r"job \w+ failed on http.*: RuntimeError: CUDA error"):
        far.trace(samples())
    server.fault(error="torch.OutOfMemoryError: CUDA out of memory")
    with pytest.raises(ServerError, match=r"out of memory.*Give it fewer samples at once"):
        far.trace(samples())
    server.fault(refuse=1)
    with pytest.raises(ServerError, match=r"answers 503 .*Service temporarily unavailable"):
        far.trace(samples())
    with settings(server.address, "another key"):
        wrong = replace(far, server=replace(far.server, connection=Connection.configured()))
        with pytest.raises(ServerError, match=r"refuses the key .*not authorized.*Set NDIF_API_KEY"):
            wrong.trace(samples())


def test_a_server_is_checked_when_a_model_is_opened(server):
    folder = server.folders["llava"]
    server.fault(versions={"nnsight": "0.7.0"})
    with pytest.raises(ServerError, match=r"runs nnsight 0\.7\.0, this machine nnsight 0\.8"):
        interp.load(folder, remote=True)
    server.fault(versions={"transformers": "5.15.0"})
    with pytest.warns(UserWarning, match=r"runs transformers 5\.15\.0.*numbers may differ"):
        interp.load(folder, remote=True)
    server.fault()
    with pytest.raises(ServerError, match=r"does not serve .*organism.* It serves, of this task: .*llava"):
        interp.load("organism", remote=True)
    with pytest.raises(ModelError, match=r"dtype='bfloat16': a model on an NDIF server is loaded already"):
        interp.load(folder, remote=True, dtype="bfloat16")
    with pytest.raises(ModelError, match=r"lora='x', device_map='auto': a model on an NDIF server is loaded"):
        interp.load(folder, remote=True, device_map="auto", lora="x")
    with (
        settings("http://127.0.0.1:9"),
        pytest.raises(ServerError, match=r"127\.0\.0\.1:9 cannot be reached"),
    ):
        interp.load(folder, remote=True)


@pytest.mark.slow
def test_a_prefix_there_is_empty_and_whole_prompts_run(both):
    far, near = both
    site = Site(queries="after_image", keys="all")
    there, here = (
        mllm.trace(mllm.prefix(samples()), reads=[Rows(site)]) for mllm in (far, near.sharing(None))
    )
    np.testing.assert_allclose(there.rows, here.rows, atol=2e-6)
    assert there.cost.tokens == len(samples()) * far.encode(samples()).inputs["input_ids"].shape[1]


def test_several_passes_are_not_submitted(both, monkeypatch):
    far, _ = both
    monkeypatch.setattr("interp.tracing.model.apart", lambda *given: [([0], None), ([1], None)])
    with pytest.raises(ModelError, match=r"need several passes, .*\. Submit each sample as a job of its own"):
        far.submit(samples())


def test_nnsights_own_trace_never_runs_here(both):
    far, _ = both
    batch, nn = far.encode(samples()), far.nn  # the block must not name `far`, which the server cannot read
    with pytest.raises(RuntimeError, match="meta tensors"), nn.trace(**batch.inputs):
        nn.lm_head.output.save()
    with nn.trace(**batch.inputs, remote=True):
        values = nn.lm_head.output[:, -1].save()
    np.testing.assert_allclose(values, far.trace(batch).logits, atol=1e-5)


def test_a_pass_that_no_server_ran_is_an_error(both, monkeypatch):
    far, _ = both
    monkeypatch.setattr(
        "interp.tracing.remote.connection.JobBackend.__call__", lambda self, tracer=None: None
    )
    with pytest.raises(ServerError, match="gave no job id or no result"):
        far.trace(samples())


def test_what_needs_the_weights_is_refused(both):
    far, near = both
    for call in (
        lambda: far.to_lens(),
        lambda: far.tap().__enter__(),
    ):
        with pytest.raises(ServerError, match="needs the model's weights on this machine"):
            call()
    for of_weights, message in (
        (lambda: check_layers(far), "circuits need the model on this machine"),
        (lambda: copying_scores(far), "copying scores need the weights, which are not on this machine"),
        (lambda: interp.head_means(far, samples(), Site()), "head_means needs the model on this machine"),
    ):
        with pytest.raises(ModelError, match=message):
            of_weights()
    with pytest.raises(ModelError, match="no model to return"):
        far.unwrap()
    with pytest.raises(ModelError, match='has only the executor "source"'):
        far.using("tap")
    with pytest.raises(ModelError, match="this one is on this machine"):
        near.submit(samples())


def test_no_code_is_sent_as_bytecode(both, monkeypatch):
    """Bytecode of one version of Python is noise to another."""
    sent = []
    plain = cloudpickle.CloudPickler._dynamic_function_reduce
    monkeypatch.setattr(
        cloudpickle.CloudPickler,
        "_dynamic_function_reduce",
        lambda self, function: sent.append(function) or plain(self, function),
    )
    both[0].trace(samples(), reads=READS, edits=[EVERY], generate=2)
    assert issubclass(SourcePickler, cloudpickle.CloudPickler)
    assert not sent


def test_a_remote_identity_names_model_and_server(both, server):
    far, near = both
    known = far.identity
    assert server.folders["llava"] in known["server model"]
    assert f'"transformers": "{__import__("transformers").__version__}"' in known["server versions"]
    assert far.fingerprint == replace(far).fingerprint != near.fingerprint
    assert "weights" not in known


def test_a_job_follows_the_layers_devices():
    rows = torch.zeros(2)
    given = {"work": {0: {"rows": rows}, 1: {"rows": rows}}, "recorder": Recorder(hides={(id(rows),): True})}
    here = job_on_device(given, torch.device("cpu"))
    here["recorder"].hides[id(rows),] = True
    assert job_on_device(here, torch.device("cpu")) is here
    there = job_on_device(here, torch.device("meta"))
    assert there["work"][0]["rows"].is_meta
    assert there["work"][0]["rows"] is there["work"][1]["rows"]
    assert not there["recorder"].hides  # its keys are addresses of tensors that may be gone


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_there_equals_here(family, tmp_path):
    with serving([family], tmp_path) as found, settings(found.address):
        far, near = opened(found.folders[family])
        alike_in_all(far, near)
        differentiated(far, near)
        mapped_alike(far, near)
        guided_alike(far, near, generate=4)
        guided_alike(far, near)
        read_alike(far, near)
        removed_alike(far, near)
        patched_alike(far, near)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_vl_moe"])
def test_streams_that_grow_between_layers_are_replaced_there(family, tmp_path):
    """Deepstack adds features of the image between layers; a mixture's routers are read beside."""
    with serving([family], tmp_path) as found, settings(found.address):
        far, near = opened(found.folders[family])
        removed_alike(far, near)
        patched_alike(far, near)
        if near.routers:
            given = {"reads": [interp.Experts(), *READS], "generate": 3}
            like(far.trace(samples(), **given), near.trace(samples(), **given))


@pytest.mark.slow
def test_a_sliding_window_keeps_positions(tmp_path):
    """Prompts longer than the window: columns of generated tokens are positions still."""
    with serving(["gemma3"], tmp_path) as found, settings(found.address):
        far, near = opened(found.folders["gemma3"])
        long = [interp.Sample(samples()[0].load(), "where is the nodule " * 12)]
        given = {"reads": READS, "generate": 4, "edits": [EVERY]}
        assert far.encode(long).tokens[0].length > min(w for w in near.visibility.windows if w)
        like(far.trace(long, **given), near.trace(long, **given))


@pytest.mark.slow
def test_patches_are_sent(both):
    far, near = both
    stream = near.trace(samples(), reads=[Residual(layers=[1])])
    edits = [PatchResidual([1], "last", [one.residual.values[:, :] * 2 for one in stream])]
    like(far.trace(samples(), reads=READS, edits=edits), near.trace(samples(), reads=READS, edits=edits))


@pytest.mark.slow
@pytest.mark.parametrize("contrast", [None, interp.Contrast()])
def test_sums_and_ablations_are_sent(both, contrast):
    far, near = both
    edits = [
        AddResidual([1], "last", np.ones(64) * 0.3, steps="all"),
        AblateHeads(Site(heads=[(1, 0), (2, 3)], queries=["all", "last"]), steps="all"),
    ]
    given = {"reads": READS, "edits": edits, "generate": 3, "decoding": Decoding(contrast=contrast)}
    like(far.trace(samples(), **given), near.trace(samples(), **given))


@pytest.mark.slow
def test_other_contrasts_need_the_model_here(both):
    noised = Decoding(contrast=interp.Contrast(against=interp.NoisedImage()))
    with pytest.raises(ModelError, match="noised images and findings need the model on this machine"):
        both[0].trace(samples(), generate=1, decoding=noised)


def feature_weights(n: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    sizes = {"encoder": (64, n), "encoder_bias": (n,), "decoder": (n, 64), "decoder_bias": (64,)}
    return {name: torch.randn(size, generator=draw) for name, size in sizes.items()}


@pytest.mark.slow
def test_feature_edits_send_the_weights_they_need(server, both):
    """One feature of many is one column; the k largest need all, and so does a reconstruction."""
    many = interp.Features(**feature_weights(4000), layer=1)
    few = interp.Features(**feature_weights(20), layer=1, activation="topk", k=4)
    jumps = interp.Features(
        **feature_weights(20), layer=1, activation="jumprelu", threshold=torch.linspace(0, 9, 20)
    )
    edits = [
        interp.AblateFeature(many, 3333, "image"),
        interp.ClampFeature(jumps, [17, 2], [3.0, 1.0], ["after_image", "last"], "all"),
        interp.ClampFeature(few, 3, 2.0),
        interp.ClampFeature(jumps, 3, 2.0, "last", keep_error=False),
        interp.ReconstructResidual(few, "image"),
    ]
    plain = both[1].trace(samples()).logits
    for edit in edits:
        far, near = (mllm.trace(samples(), edits=[edit], generate=2) for mllm in both)
        like(far, near)
        assert float(np.abs(near.logits - plain).max()) > 0.1
    bodies = [job["payload"] for job in server.sizes()[-len(edits) :]]
    assert bodies[0] < 500_000, "an encoder of 4,000 features alone is a megabyte"


@pytest.mark.slow
def test_work_at_mlps_stays_here(both):
    edit = interp.AblateFeature(interp.Features(**feature_weights(20), layer=1, site="mlp"), 3)
    with pytest.raises(ServerError, match=r"transcoders run on this machine only.*interp.AddResidual"):
        both[0].trace(samples(), edits=[edit])
    with pytest.raises(ServerError, match=r"MLPs can be read only on this machine.*interp.Residual"):
        both[0].trace(samples(), reads=[interp.MLP()])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ndif") is None, reason="the package ndif is not installed")
def test_ndifs_own_sandbox_runs_a_job(tmp_path: Path):
    """As real servers run jobs of untrusted keys: apart from the model, where no gradient can flow."""
    with serving(["llava"], tmp_path, "--sandbox") as found, settings(found.address):
        far, near = opened(found.folders["llava"])
        given = {"reads": READS, "edits": [EVERY], "generate": 3}
        like(far.trace(samples(), **given), near.trace(samples(), **given))
        with pytest.raises(ServerError, match="no gradient can flow"):
            differentiated(far, near)


@pytest.mark.remote
def test_a_real_server_reads_rows():
    """On the server of nnsight's settings, with NDIF_API_KEY set: `pytest -m remote -n 0`."""
    far = interp.load(os.environ.get("INTERP_REMOTE_MODEL", "llava-hf/llava-1.5-7b-hf"), remote=True)
    trace = far.trace(samples(1), reads=[Rows(Site(layers=[1, 2], queries="last", keys="all"))], generate=2)
    np.testing.assert_allclose(trace[0].rows.isel(step=0).sum("key"), 1.0, atol=1e-2)
    assert len(trace[0].ids) <= 2


@pytest.mark.remote
def test_a_real_server_edits_rows():
    far = interp.load(os.environ.get("INTERP_REMOTE_MODEL", "llava-hf/llava-1.5-7b-hf"), remote=True)
    site = Site(layers=[2], queries="last", keys="image")
    trace = far.trace(samples(1), reads=[Rows(site)], edits=[Knockout(site)])
    assert float(np.abs(trace[0].rows).max()) == 0.0
