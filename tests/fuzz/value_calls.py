"""Public functions that need no model, with arguments that they take, for `trials`."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import interp
from interp import data, data_build, indicators, methods, metrics, stats, study
from interp.inputs.sample import Sample
from interp.metrics import scorers
from interp.tracing import word_lenses
from tests.data import source_files as files
from tests.data.benchmarks import layouts
from tests.fuzz.masks import value_masks
from tests.fuzz.trials import Call, called_back, given

SITE = interp.Site(layers=[0])
MAP = np.array([0.1, 0.7, 0.2, 0.4])
MASK = np.array([True, False, False, True])
VALUES, GROUPS = [0.1, 0.2, 0.3, 0.4], ["a", "a", "b", "c"]


def picture(width: int = 80, height: int = 64) -> np.ndarray:
    """A picture of random pixels."""
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def sample(**fields: Any) -> Sample:
    """A sample with a box, an answer and all the rest."""
    given = {"question": "where is the nodule?", "boxes": [(10, 10, 40, 40)], "answer": "left", "group": "p"}
    return Sample(picture(), **{**given, **fields})


def _video() -> dict[str, Any]:
    return {"video": [picture(), picture(), picture()], "question": "is it red?", "fps": 2.0}


def samples() -> data.Samples:
    """Two samples that say they are of no split."""
    return data.Samples([sample(id="one"), sample(id="two", question="is it red?", answer="yes")], "tried")


def _weights() -> dict[str, Any]:
    draw = np.random.default_rng(0).normal
    sizes = {"encoder": (64, 5), "encoder_bias": 5, "decoder": (5, 64), "decoder_bias": 64}
    return {
        **{name: torch.from_numpy(np.float32(draw(size=size))) for name, size in sizes.items()},
        "layer": 0,
    }


def _features() -> interp.Features:
    return interp.Features(**_weights())


def _edits() -> list[Call]:
    own = given(site=SITE)
    return [
        Call("Knockout", interp.Knockout, own),
        Call("ScaleWeights", interp.ScaleWeights, given(site=SITE, factor=0.5)),
        Call("ScaleScores", interp.ScaleScores, given(site=SITE, factor=0.5)),
        Call("Boost", interp.Boost, given(site=SITE, alpha=0.5)),
        Call("Guide", interp.Guide, given(site=SITE, alpha=0.5)),
        Call("Apply", interp.Apply, given(site=SITE, function=max)),
        Call("PatchRows", interp.PatchRows, given(site=SITE, values=np.ones((1, 4, 1, 5)))),
        Call(
            "PatchResidual",
            interp.PatchResidual,
            given(layers=[0], positions="last", values=np.ones((1, 1, 64))),
        ),
        Call("AddResidual", interp.AddResidual, given(layers=[0], positions="last", vector=np.ones(64))),
        Call("AblateHeads", interp.AblateHeads, own),
        Call("ClampFeature", interp.ClampFeature, given(features=_features(), feature=1, value=2.0)),
        Call("AblateFeature", interp.AblateFeature, given(features=_features(), feature=1)),
        Call("ReconstructResidual", interp.ReconstructResidual, given(features=_features())),
        Call("Features", interp.Features, _weights),
        Call("load_features", interp.load_features, given(path="nowhere")),
        Call("Rows", interp.Rows, own),
        Call("Residual", interp.Residual),
        Call("Experts", interp.Experts),
        Call("MLP", interp.MLP),
        Call("Features of an MLP", interp.Features, lambda: {**_weights(), "site": "mlp"}),
        Call("Site", interp.Site),
        Call("Site.resolve", SITE.resolve, given(n_layers=3, n_heads=4)),
        Call("Site.from_dict", interp.Site.from_dict, given(values=SITE.to_dict())),
        Call("positions", interp.positions, given(values=[1])),
        Call("image_mask", interp.image_mask, given(mask=MASK)),
        Call("word", interp.word, given(text="nodule")),
        Call("Decoding", interp.Decoding),
        Call("Contrast", interp.Contrast),
        Call("NoisedImage", interp.NoisedImage),
        Call("ClinicalContrast", interp.ClinicalContrast, given(findings={"a": {"nodule": 0.5}})),
    ]


def _labelled() -> data.Samples:
    """Two pictures with a label each."""
    other = Sample(picture(90), "?", [(1, 1, 9, 9)], meta={"label": "liver"})
    return data.Samples([sample(meta={"label": "nodule"}), other], "labelled")


def _inputs() -> list[Call]:
    box, prompt, one = interp.Box(1, 2, 3, 4), interp.PAPER_PROMPT, sample()
    return [
        Call("Box", interp.Box, given(x0=1, y0=2, x1=3, y1=4)),
        Call("Box.clip", box.clip, given(width=9, height=9)),
        Call("Box.check_inside", box.check_inside, given(size=(9, 9))),
        Call("Mask", interp.Mask, given(values=np.eye(4, dtype=bool))),
        Call("Mask.check", interp.Mask(np.eye(4, dtype=bool)).check, given(size=(4, 4))),
        Call("Sample", interp.Sample, lambda: {"image": picture(), "question": "is it red?"}),
        Call("Sample of a video", interp.Sample, lambda: _video() | {"n_frames": 2}),
        Call("Sample of a video at a rate", interp.Sample, lambda: _video() | {"video_fps": 1.0}),
        Call("Sample.load", one.load),
        Call("Sample.replace", one.replace, given(question="?", boxes=[], meta={}, image=picture(), id="x")),
        Call("Prompt", interp.Prompt),
        Call("Prompt.text", prompt.text, given(sample=one)),
        Call("Prompt.messages", prompt.messages, given(sample=one)),
        Call("Prompt.question_span", prompt.question_span, given(sample=one)),
        Call("Target", interp.Target),
        Call("diff", interp.diff, given(first="yes", second="no")),
        Call("Samples", data.Samples, given(samples=[one])),
        Call("presence_questions", data.presence_questions, given(samples=_labelled())),
        Call("Samples.filter", samples().filter, given(keep=bool), called_back("keep")),
        Call("bundled", data.bundled, given(name="natural", n=1)),
        Call("jsonl", data.jsonl, given(path="nowhere.jsonl")),
        Call("coco", data.coco, given(root="nowhere", annotations="nowhere")),
        Call("vgmed", data.vgmed, given(root="nowhere")),
        Call("named", data.named, given(name="natural", n=1)),
        *_readers(),
        *_builder(),
    ]


@cache
def _layouts() -> Path:
    """A folder with small files in the layouts that readers know."""
    folder = Path(tempfile.mkdtemp())
    files.coco_file(folder / "coco", [files.thing(1, [1, 1, 9, 9])])
    files.voc_folder(folder / "voc", files.voc_object("cat", 1, 1, 9, 9))
    files.yolo_folder(folder / "yolo", "0 0.5 0.5 0.5 0.5\n")
    files.slake_folder(folder / "slake", files.slake_row())
    files.sa_med2d_folder(folder / "sa_med2d")
    files.medsam_file(folder / "CT_1.npz")
    files.medsg_folder(folder / "medsg", files.medsg_row())
    files.refcoco_files(folder / "refs")
    layouts.vqa_rad_folder(folder / "vqa_rad", layouts.vqa_rad_row(1, "?", "yes"))
    layouts.hub_folder(folder / "path_vqa", test=[("?", "yes")])
    layouts.pmc_vqa_folder(folder / "pmc_vqa", layouts.pmc_vqa_row())
    layouts.omnimedvqa_folder(folder / "omnimedvqa", layouts.omnimedvqa_row())
    layouts.mmmu_folder(folder / "mmmu", layouts.mmmu_row(), split="test")
    layouts.huatuo_folder(folder / "huatuo", layouts.huatuo_row())
    files.image(folder / "a.png")
    (folder / "rows.csv").write_text("image,question\na.png,?\n")
    return folder


def _readers() -> list[Call]:
    """Readers of small files; those of volumes of files that are not there."""
    folder = _layouts()
    row = {"image": picture(), "question": "?", "caption": "a scan", "id": "x", "bbox": [1, 1, 9, 9]}
    refs = {"instances": folder / "refs/instances.json", "images": folder / "refs/train2014"}
    coco = {
        "annotations": folder / "coco/annotations/instances_val2017.json",
        "images": folder / "coco/val2017",
    }
    return [
        Call("csv", data.csv, given(path=folder / "rows.csv")),
        Call("frame", data.frame, given(table=pd.DataFrame([row]))),
        Call("hub", data.hub, given(source=[row]), frozenset({"download=True"})),
        Call("coco_instances", data.coco_instances, given(**coco)),
        Call("voc", data.voc, given(root=folder / "voc")),
        Call("yolo", data.yolo, given(root=folder / "yolo")),
        Call("slake", data.slake, given(root=folder / "slake")),
        Call("sa_med2d", data.sa_med2d, given(root=folder / "sa_med2d")),
        Call("medsam", data.medsam, given(path=folder / "CT_1.npz")),
        Call("medsg", data.medsg, given(path=folder / "medsg/Task3.json")),
        *(
            Call(name, getattr(data, name), given(folder=folder / name), frozenset({"download=True"}))
            for name in ("vqa_rad", "path_vqa", "pmc_vqa", "omnimedvqa", "huatuo")
        ),
        Call(
            "mmmu",
            data.mmmu,
            given(folder=folder / "mmmu", subjects=["Pharmacy"]),
            frozenset({"download=True"}),
        ),
        Call("question_counts", data.question_counts, given(samples=samples())),
        Call("medtrinity", data.medtrinity, given(source=[row])),
        Call("s_chain", data.s_chain, given(source=[files.s_chain_row()])),
        Call("refcoco", data.refcoco, given(source=folder / "refs/refs.json", **refs)),
        Call("nifti", data.nifti, given(image="nowhere.nii", labels="nowhere.nii")),
        Call("dicom", data.dicom, given(series="nowhere", labels="nowhere.nii")),
    ]


def _builder() -> list[Call]:
    """The builder of grounding sets, on one sample."""
    labelled = data.Samples([sample(meta={"label": "liver"})], "tried")
    out = Path(tempfile.mkdtemp()) / "built"
    rules = data_build.Settings(area=(0.0, 1.0))
    return [
        Call("Settings", data_build.Settings),
        Call("Endpoint", data_build.Endpoint, given(url="http://localhost/v1", model="m")),
        Call("build", data_build.build, given(samples=labelled, out=out, settings=rules)),
        Call("scans", data_build.scans, given(root="nowhere")),
    ]


def _metrics() -> list[Call]:
    pair = given(map=MAP, mask=MASK)
    agreement = [
        Call(name, getattr(metrics, name), pair)
        for name in ("attention_ratio", "auroc", "average_precision", "box_iou", "js_divergence")
    ]
    return [
        *agreement,
        *(Call(name, getattr(metrics, name), pair) for name in ("kl_divergence", "kl_gain", "pointing_game")),
        Call(
            "attention_ratio_sliding", metrics.attention_ratio_sliding, given(map=MAP, mask=MASK, grid=(2, 2))
        ),
        Call("METRICS[…]", metrics.METRICS["ar_sliding"], given(map=MAP, mask=MASK, grid=(2, 2))),
        Call("comprehensiveness", metrics.comprehensiveness, given(untouched=0.5, without=[0.1, 0.2])),
        Call("sufficiency", metrics.sufficiency, given(untouched=0.5, only=[0.1, 0.2])),
        Call("curve_area", metrics.curve_area, given(fractions=[0, 0.5, 1], values=[1, 0.5, 0])),
        Call("most_important", metrics.most_important, given(map=MAP, fractions=[0.5])),
        Call("normalised", metrics.normalised, given(values=[1.0, 0.5], untouched=1.0, removed=0.0)),
        Call("tokens_first", metrics.tokens_first, given(map=MAP)),
        Call("positive_part", metrics.positive_part, given(map=MAP)),
        Call("spearman", metrics.spearman, given(a=MAP, b=MAP[::-1])),
        Call("kendall", metrics.kendall, given(a=MAP, b=MAP[::-1])),
        Call("metrics.named", metrics.named, given(names="ar")),
        *_scorers(),
    ]


def _scorers() -> list[Call]:
    asked = Sample("scan.png", "?", answer="yes", options=("yes", "no"))
    marked = {"samples": [asked], "prompt": interp.Prompt()}
    rules = (scorers.Strict(), scorers.HuatuoCompat(), scorers.Bleu1(), scorers.OpenRecall())
    likeliest = scorers.OptionLogProbability()
    return [
        Call("Strict", scorers.Strict),
        Call("OpenRecall", scorers.OpenRecall),
        Call("Bleu1", scorers.Bleu1),
        Call("BertScore", scorers.BertScore),
        Call("OptionLogProbability", scorers.OptionLogProbability),
        *(Call(f"{type(one).__name__}.scores", one.scores, given(texts=["A"], **marked)) for one in rules),
        Call(
            "OptionLogProbability.scores", likeliest.scores, given(log_probabilities=[[-1.0, -2.0]], **marked)
        ),
        Call("OptionLogProbability.answers", likeliest.answers, given(sample=asked, prompt=interp.Prompt())),
        Call("OptionLogProbability.target", likeliest.target, given(answer="A")),
        Call("extracted", scorers.extracted, given(text="yes")),
        Call("normalised_words", scorers.normalised_words, given(text="yes")),
        Call("scorer_named", scorers.scorer_named, given(name="strict")),
    ]


def _statistics() -> list[Call]:
    two = given(a=VALUES, b=VALUES[::-1], groups=GROUPS)
    apart = given(a=VALUES, b=VALUES[::-1], groups_a=GROUPS, groups_b=GROUPS[::-1])
    mean = given(statistic=np.mean, columns=[VALUES], groups=GROUPS, n=20)
    crossed = given(values=VALUES, groups_a=GROUPS, groups_b=GROUPS[::-1])
    return [
        Call("bootstrap", stats.bootstrap, given(values=VALUES, groups=GROUPS)),
        Call(
            "stratified_mean",
            stats.stratified_mean,
            given(values=[1.0, 0.0], strata=["a", "b"], groups=["x", "y"]),
        ),
        Call("bootstrap_statistic", stats.bootstrap_statistic, mean, called_back("statistic")),
        Call("paired", stats.paired, two),
        Call("unpaired", stats.unpaired, apart),
        Call("two_way", stats.two_way, crossed),
        Call("paired_test", stats.paired_test, two),
        Call("unpaired_test", stats.unpaired_test, apart),
        Call("flips", stats.flips, given(before=[0, 1], after=[1, 1])),
        Call("yes_no_marks", stats.yes_no_marks, given(answers=["yes", "no"], truth=["yes", "yes"], n=20)),
        Call(
            "yes_no_change",
            stats.yes_no_change,
            given(before=["yes", "no"], after=["no", "no"], truth=["yes", "yes"], n=20),
        ),
        Call("holm", stats.holm, given(p_values=[0.1, 0.2])),
        Call("per_group", stats.per_group, given(values=VALUES, groups=GROUPS)),
        Call("population_note", stats.population_note, given(n_groups=3)),
        Call("two_way_share", stats.two_way_share, crossed),
        Call("krippendorff_alpha", stats.krippendorff_alpha, given(ratings=[[1, 2, 3], [1, 2, 2]])),
        Call("weighted_kappa", stats.weighted_kappa, given(a=[1, 2, 3], b=[1, 2, 2], values=[1, 2, 3])),
    ]


INDICATORS = (
    "ActivationPatching", "Attention", "AttentionGradient", "AttributionPatching", "CentrePrior", "FeatureMap",
    "EmbeddingReplacement", "InputGradient", "IntegratedGradients", "Occlusion", "RandomMap", "RandomMasks", "Rollout",
    "SmoothGrad", "TokenKnockout", "ValueWeightedAttention", "VisionAttention",
)  # fmt: skip
REMOVALS = ("HideTokens", "PaintPixels", "ReplaceEmbeddings")


def _indicators() -> list[Call]:
    needed = {
        "ActivationPatching": given(partners={"one": sample()}),
        "FeatureMap": given(features=_features(), feature=1),
    }
    return [
        Call(name, getattr(indicators, name), needed.get(name, dict)) for name in (*INDICATORS, *REMOVALS)
    ]


def _methods() -> list[Call]:
    vgrefine = methods.VGRefine(heads=[(0, 1)])
    return [
        Call("Plain", methods.Plain),
        Call("PAI", methods.PAI),
        Call("method_named", methods.method_named, given(name="PAI")),
        Call("HGAI", methods.HGAI),
        Call("AdaptVis", methods.AdaptVis),
        Call("ScalingVis", methods.ScalingVis, given(weight=0.5)),
        Call("VGRefine", methods.VGRefine, given(heads=[(0, 1)])),
        Call("VGRefine.masked_layers", vgrefine.masked_layers, given(n_layers=8)),
        Call("PAI.boosted_layers", methods.PAI().boosted_layers, given(n_layers=8)),
        Call("HGAI.guided_layers", methods.HGAI().guided_layers, given(n_layers=8)),
        Call("ViCrop", methods.ViCrop),
        Call("VCD", methods.VCD),
        Call("CCD", methods.CCD, given(findings={"a": {"nodule": 0.5}})),
        Call("indicator_named", indicators.indicator_named, given(name="attention")),
        Call("kept_tokens", methods.kept_tokens, given(values=MAP, percentile=50.0)),
        Call("above_magnitude", methods.above_magnitude, given(values=MAP, threshold=0.5)),
        Call("scaled_layers", methods.scaled_layers, given(published=range(2, 4), depth=8, n_layers=4)),
    ]


def _studies() -> list[Call]:
    own, k = samples(), study.LayerSweep(data=samples())
    ranking = study.HeadRanking(data=own)
    return [
        Call("runs", interp.runs, given(out=".")),
        *(Call(kind.__name__, kind, given(data=own)) for kind in STUDIES),
        Call("LayerSweep.replace", k.replace, given(seed=1, metrics="ar", data=own)),
        Call("HeadRanking.top", ranking.top, given(k=2)),
        Call("HeadSet", study.HeadSet, given(ranking=ranking, k=2)),
        Call("HeadSet.of", study.HeadSet.of, given(pairs=[(0, 1)])),
        Call("published_heads", study.published_heads, given(name="huatuogpt-vision-7b")),
        Call("Grid", study.Grid, given(base=k, seed=[0, 1], metrics=["ar"])),
        Call("paper_table", study.paper_table, given(name="1")),
        Call("paper_model", study.paper_model, given(model=study.ModelSpec("organism"), paper=True)),
        Call("Flow", study.Flow, given(keys="image", queries="last")),
        Call("ModelSpec", study.ModelSpec, given(id="organism")),
        Call("LatentLens", word_lenses.LatentLens, given(corpus=["a red circle"], candidates=[-1, 0])),
        Call("Patchscope", word_lenses.Patchscope, given(prompt="a ?", position=-1, layers=[0], n_tokens=2)),
        Call("JacobianLens", word_lenses.JacobianLens, given(corpus=["a red circle"], max_tokens=32)),
        Call("load_jacobians", word_lenses.load_jacobians, given(path="jacobians.safetensors")),
        Call("LensSweep.lens", study.LensSweep, given(data=own, lens="contextual")),
        Call("KnockoutSweep.windows", study.KnockoutSweep(data=own).windows, given(n_layers=6)),
    ]


STUDIES: tuple[Any, ...] = (
    study.LayerSweep, study.HeadRanking, study.HeadAttribution, study.HeadRoles, study.Circuit,
    study.LensSweep, study.KnockoutSweep, study.ProbeSweep, study.ReasoningSweep, study.Refinement,
    study.StatedBoxes, study.IndicatorComparison, study.Benchmark,
)  # fmt: skip


def value_calls() -> dict[str, list[Call]]:
    """What needs no model, by kind."""
    return {
        "edits": _edits(),
        "inputs": _inputs(),
        "metrics": _metrics(),
        "masks": value_masks(),
        "statistics": _statistics(),
        "indicators": _indicators(),
        "methods": _methods(),
        "studies": _studies(),
    }
