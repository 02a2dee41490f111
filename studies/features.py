"""Features: a sparse autoencoder or a transcoder, what it leaves out, and what its features do to the answer.

    python studies/features.py
    python studies/features.py --model Qwen/Qwen3.5-2B --device cuda --features layer10.sae.safetensors --k 50

Without `--features`, a small top-k autoencoder of the residual stream (`--site mlp`: a transcoder of the MLP) is
trained on the image tokens of the first half of the samples (seconds on the organism). With `--features`, files that
`interp.load_features` can read are used instead. On the second half the script prints explained variance, L0 and the
change of the answer's log-probability under the reconstruction; then, for the features that are most active inside the
boxes relative to the whole image, what ablating each does to the answer. Each of these features gets a page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

import interp
from interp.cli import run_script
from interp.data import Samples
from interp.data.open import sets
from interp.report.feature_page import save_feature_page
from interp.report.tables import count
from interp.study.dataframes import records, where
from interp.study.model_spec import is_organism


def main(
    model: str = "organism", data: str = "natural", out: Path = Path("runs"), seed: int = 0, n: int = 80,
    features: Path | None = None, layer: int = 0, k: int | None = None, width: int = 512, n_shown: int = 3,
    site: Literal["residual", "mlp"] = "residual",
    device: str = "cpu", dtype: str = "float32",
) -> None:  # fmt: skip
    """What features of the residual stream say about the image, and what they do to the answer.

    Args:
        model: "organism", a Hugging Face id or a local folder.
        data: "natural", "medical", a .jsonl file, or a folder of VGMED's or COCO's files.
        out: Folder for the pages.
        seed: Draws the samples and the autoencoder's first weights.
        n: The maximum number of samples.
        features: A folder or file of features; by default features are trained.
        layer: The layer of trained features.
        k: The number of features active at once; by default what the files say, and 8 for trained features.
        width: The number of features to train.
        n_shown: The number of features to ablate and to make pages of.
        site: What trained features describe: the residual stream after the layer, or its MLP.
        device: Where the model runs.
        dtype: The model's floating-point type.
    """
    mllm = interp.load(model, device=device, dtype=dtype)
    samples = next(iter(sets((data,), n=n, seed=seed, needed=True).values()))
    half = len(samples) // 2
    own = (
        interp.load_features(features, k=k)
        if features
        else trained(mllm, samples[:half], layer, k or 8, width, seed, site=site)
    )
    rest = samples[half:]
    print(own)
    print(own.fidelity(mllm, rest, positions="image", progress=False))
    describe(mllm, own, rest, out, n_shown)


def describe(mllm: interp.Mllm, own: interp.Features, rest: Samples, out: Path, n_shown: int) -> None:
    """Prints the effect of ablating each of the features that are most active inside the boxes; writes their pages."""
    found, target = own.read(mllm, rest, progress=False), interp.Target("greedy")
    plain = mllm.score(rest, target, progress=False).values
    for row in records(inside(found, rest).head(n_shown)):
        edit = interp.AblateFeature(own, row["feature"], "image")
        change = mllm.score(rest, target, edits=[edit], progress=False).values - plain
        path = out / f"feature_{row['feature']}.html"
        save_feature_page(found, row["feature"], path, organism=is_organism(mllm))
        print(
            f"  feature {row['feature']}: {row['ratio']:.1f} times as active inside the boxes, in "
            f"{count(row['samples'], 'sample')}; ablated at the image tokens: log p of the answer changes by "
            f"{change.mean():+.3f} nats on average (lowest {change.min():+.3f}). Page: {path}"
        )


def trained(
    mllm: interp.Mllm,
    samples: Samples,
    layer: int,
    k: int,
    width: int,
    seed: int = 0,
    steps: int = 400,
    site: Literal["residual", "mlp"] = "residual",
) -> interp.Features:
    """A top-k autoencoder, or a transcoder, at the image tokens of these samples: Adam on the squared error.

    The decoder starts as the encoder's transpose, and its rows are kept at norm 1 (Gao et al. 2024); there is no
    auxiliary loss against features that are never active.
    """
    sides = [interp.MLP([layer], "image", "input"), interp.MLP([layer], "image", "output")]
    reads = sides if site == "mlp" else [interp.Residual([layer], "image")]
    found = mllm.trace(samples, reads=reads, progress=False)
    stream, wanted = (
        torch.cat([torch.from_numpy(one.reads[at].values[0]) for one in found]) for at in (0, -1)
    )
    draw = torch.Generator().manual_seed(seed)
    decoder = torch.randn(width, stream.shape[1], generator=draw)
    decoder = torch.nn.functional.normalize(decoder, dim=1).requires_grad_()
    encoder = decoder.detach().T.clone().requires_grad_()
    bias, centre = torch.zeros(width, requires_grad=True), wanted.mean(dim=0).clone().requires_grad_()
    optimiser = torch.optim.Adam([encoder, decoder, bias, centre], lr=3e-3)
    for _ in range(steps):
        at = torch.randint(len(stream), (512,), generator=draw)
        before = (stream[at] - (centre if site == "residual" else 0)) @ encoder + bias
        top = before.topk(k, dim=1)
        activations = torch.zeros_like(before).scatter(1, top.indices, top.values.relu())
        loss = (activations @ decoder + centre - wanted[at]).square().sum(dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            decoder /= decoder.norm(dim=1, keepdim=True)
    own: dict[str, Any] = {"k": k, "centred": site == "residual", "site": site, "name": "trained here"}
    return interp.Features(encoder, bias, decoder, centre, layer, "topk", **own)


def inside(found: interp.tracing.FeatureActivations, samples: Samples) -> pd.DataFrame:
    """Features by mean activation inside the boxes over mean activation on the image; active in 5 samples at least."""
    box, everywhere, active = np.zeros((3, found.n_features))
    for one, tokens, sample in zip(found.sparse, found.tokens, samples, strict=True):
        mask = tokens.mask(sample.boxes)
        if mask.any():
            box += np.asarray(one[np.flatnonzero(mask)].mean(axis=0))
            everywhere += np.asarray(one.mean(axis=0))
            active += np.asarray(one.sum(axis=0)) > 0
    ratio = np.divide(box, everywhere, out=np.zeros_like(box), where=everywhere > 0)
    frame = pd.DataFrame({"feature": np.arange(len(ratio)), "ratio": ratio, "samples": active.astype(int)})
    return where(frame, frame.samples >= 5).sort_values("ratio", ascending=False, kind="stable")


if __name__ == "__main__":
    run_script(main)
