"""Which grounding indicator can be trusted, and what does it cost? Calibration on models whose cause is known.

    python studies/indicators.py --workers 2
    python studies/indicators.py --model llava-hf/llava-1.5-7b-hf --device cuda --data FOLDER

By default the script runs both seeds of two organisms: one answers from the object in question (natural scenes, truth
"boxes"), the other from a corner marker (marked scenes, truth "marker", compared with the object's boxes). A scene is a
group. Each indicator is compared with the truth, with the others, and under three removals, shuffled weights and other
questions. Layers are chosen on validation scenes. Settings are coarse, so that it takes minutes on two cores:
SmoothGrad of 4 draws, integrated gradients of 8 steps, 150 random masks, occlusion of blocks of 4 × 4 tokens, then of
each token in the most important quarter; embedding replacement on `--few` samples, curves on `--n-faithful`, sanity
checks on `--n-checked`. Runs under `--out` are resumed; `indicators.html` is the result.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from interp.cli import WorkerOptions, run_script
from interp.data import Samples, bundled, named
from interp.indicators import (
    Attention,
    AttentionGradient,
    AttributionPatching,
    CentrePrior,
    EmbeddingReplacement,
    HideTokens,
    InputGradient,
    IntegratedGradients,
    Occlusion,
    PaintPixels,
    RandomMap,
    RandomMasks,
    ReplaceEmbeddings,
    Rollout,
    SmoothGrad,
    TokenKnockout,
    ValueWeightedAttention,
)
from interp.inputs.prompt import GENERIC_PROMPT
from interp.study import Grid, IndicatorComparison, IndicatorResult, ModelSpec

ORGANISMS = {
    "natural": (("organism", "organism-1"), ("boxes",)),
    "marked": (("shortcut-organism", "shortcut-organism-1"), ("marker", "boxes")),
}
"""Bundled data → the organisms certified on them, and what to score against: the certified cause first."""
DEAR = "embedding replacement"
SETTINGS: dict[str, Any] = {
    "removals": (HideTokens(), ReplaceEmbeddings("mean"), PaintPixels("blur")),
    "steps": (0.05, 0.1, 0.2, 0.5, 0.8),
    "erased": (0.05, 0.1, 0.2, 0.5),
}


def indicators(seed: int) -> dict[str, Any]:
    """Every indicator, at coarse settings; integrated gradients only where captum is installed."""
    found: dict[str, Any] = {
        "relative attention": Attention(relative_to=GENERIC_PROMPT),
        "attention": Attention(),
        "value-weighted attention": ValueWeightedAttention(),
        "rollout": Rollout(),
        "attention × gradient": AttentionGradient(),
        "attention × gradient, signed": AttentionGradient(signed=True),
        "input gradient": InputGradient(of="pixels"),
        "gradient × input": InputGradient(of="embeddings", times_input=True),
        "SmoothGrad": SmoothGrad(of="pixels", n=4, seed=seed),
        "integrated gradients": IntegratedGradients(of="embeddings", steps=8),
        "attribution patching": AttributionPatching(),
        "token knockout": TokenKnockout(),
        DEAR: EmbeddingReplacement(by="mean"),
        "occlusion": Occlusion(by="blur", coarse=4),
        "random masks": RandomMasks(n=150, seed=seed),
        "centre": CentrePrior(),
        "random": RandomMap(seed),
    }
    if importlib.util.find_spec("captum") is None:
        print(
            f"{found.pop('integrated gradients')} is left out: it needs captum. Run pip install 'interp[gradients]'."
        )
    return found


def main(
    model: str = "organisms", data: str = "natural", truth: tuple[str, ...] = ("boxes",),
    out: Path = Path("runs"), seed: int = 0, workers: WorkerOptions = 1, n: int = 24, n_validation: int = 10,
    n_faithful: int = 4, n_checked: int = 4, few: int = 20, batch_size: int = 8, device: str = "cpu",
    dtype: str = "float32",
) -> None:  # fmt: skip
    """Compare indicators on the same samples.

    Args:
        model: "organisms" for both seeds of both; else a name, a Hugging Face id or a local folder.
        data: For such a model: "natural", "marked", "medical", a .jsonl file, or a folder of VGMED's or COCO's files.
        truth: For such a model: "boxes", or keys of the samples' meta that hold boxes; the first is the cause.
        out: Folder for runs and indicators.html.
        seed: Draws samples, random maps and masks, shuffled weights, and the groups of the bootstrap.
        workers: The number of worker processes, and where they run.
        n: The maximum number of test samples per data set.
        n_validation: The maximum number of validation samples, on which layers are chosen.
        n_faithful: The number of samples on which tokens are removed for the curves.
        n_checked: The number of samples on which weights are shuffled and questions exchanged.
        few: The number of samples for embedding replacement, which takes one pass per image token.
        batch_size: Samples per call of an indicator.
        device: Where the models run.
        dtype: The models' floating-point type.
    """
    whole = {data: ((model,), truth)} if model != "organisms" else ORGANISMS
    results = []
    for name, (models, sought) in whole.items():
        study = IndicatorComparison(
            data=_samples(name, "test", n, seed),
            validation=_samples(name, "validation", n_validation, seed),
            indicators=indicators(seed), truth=sought, **SETTINGS, few={DEAR: few},
            n_faithful=n_faithful, n_checked=n_checked, seed=seed, batch=batch_size,
        )  # fmt: skip
        specs = {one: ModelSpec(one, device=device, dtype=dtype) for one in models}
        results.append(Grid(study, model=specs).run(out, workers=workers))
    show(IndicatorResult.join(results), out)


def show(result: IndicatorResult, out: Path) -> None:
    """The table, what was not measured, and the report."""
    print(result.table(), end="\n\n")
    if len(result.failures):
        counts = result.failures.groupby(["model", "control", "metric", "error"], dropna=False).size()
        print(f"Not measured:\n{counts.to_string()}", end="\n\n")
    print(f"Report: {result.report(out / 'indicators.html')}")


def _samples(name: str, split: str, n: int, seed: int) -> Samples:
    return (bundled if name in ORGANISMS else named)(name, split=split, n=n, seed=seed)


if __name__ == "__main__":
    run_script(main)
