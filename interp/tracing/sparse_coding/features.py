"""Features of sparse autoencoders and transcoders: loaded, read on samples, and measured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from scipy.sparse import csr_array

from interp.errors import ModelError
from interp.inputs.argument_checks import check_one_of, check_whole
from interp.inputs.prompt import Prompt, Target
from interp.inputs.sample import Sample
from interp.inputs.sample_list import as_samples
from interp.inputs.text import count
from interp.inputs.tokens import TokenMap
from interp.tracing.activation_edits import ReconstructResidual
from interp.tracing.cost import Cost
from interp.tracing.passes.micro_batches import BATCH_SIZE
from interp.tracing.reads import MLP, Read, Residual
from interp.tracing.site import Selector
from interp.tracing.sparse_coder import SparseCoder
from interp.tracing.sparse_coding.coder_files import coder_fields
from interp.tracing.target import score
from interp.tracing.trace import Trace, trace
from interp.tracing.wrapped_model import WrappedModel

__all__ = ["FeatureActivations", "FeatureFidelity", "Features", "Sums", "load_features"]


AT_ONCE = 2**25
"""The number of activations that are held densely at a time."""


class Features(SparseCoder):
    """A sparse autoencoder of the residual stream after one layer: a dictionary of features.

    It writes the stream h at a position as h ≈ Σ_f a_f·d_f + b: activations a ≥ 0, few of them above 0, times
    directions d, the rows of `decoder`. `interp.load_features` reads one from files; every array is float32.

        z = (h′ − b·[centred]) @ encoder + encoder_bias        h′ = h, or h rescaled (`scaling`)
        relu: a = max(z, 0)       jumprelu: a = z where z > threshold, else 0
        topk: a = z where z is among the k largest of the position, else 0; below 0 it is 0 if `rectified`
        gated: a = max((h′ − …) @ encoder · exp(log_scale) + encoder_bias, 0) where (h′ − …) @ encoder + gate_bias > 0

    A transcoder (`site="mlp"`) approximates an MLP instead. It reads h, the input of the layer's MLP after its norm,
    and writes what the MLP adds to the stream: MLP(h) ≈ Σ_f a_f·d_f + b [+ h @ skip]. It is read, clamped and ablated
    like an autoencoder; edits change what the MLP adds.

    A feature is a direction that the autoencoder found useful for reconstruction, on the data it was trained on. An
    active feature at an image token does not show that the model uses it: clamp or ablate it (`interp.ClampFeature`,
    `interp.AblateFeature`) and look at the answer. Features trained on text alone may reconstruct image tokens badly:
    check `fidelity` first.

    Args:
        encoder: The encoder's weights, (hidden, feature).
        encoder_bias: The encoder's bias, (feature,).
        decoder: The decoder's weights, (feature, hidden); row f is the direction d_f.
        decoder_bias: The decoder's bias b, (hidden,).
        layer: The decoder layer after which the stream is read, or whose MLP a transcoder approximates, 0-based.
        activation: "relu", "jumprelu", "topk" or "gated".
        threshold: The thresholds of "jumprelu", (feature,).
        k: The number of features that "topk" keeps at each position.
        gate_bias: The gate's bias of "gated", (feature,).
        log_scale: The log of the magnitudes' scale of "gated", (feature,).
        centred: Whether b is subtracted before encoding.
        rectified: Whether "topk" sets values below 0 among the k largest to 0.
        scaling: How each position is rescaled before encoding; decoding undoes it. "none"; "constant_norm", to the norm
            √hidden; "layer_norm", to mean 0 and standard deviation 1.
        site: "residual", or "mlp" for a transcoder.
        skip: The matrix of a transcoder's linear path beside its features, (hidden, hidden); None without one.
        name: A name for tables and figures.

    Raises:
        ModelError: Weights whose shapes do not fit or that are not finite, or an activation without its weights.

    Source: Bricken et al. 2023 (ReLU), Rajamanoharan et al. 2024 (gated, arXiv 2404.16014; JumpReLU, arXiv 2407.14435),
    Gao et al. 2024 (top-k, arXiv 2406.04093); Dunefsky et al. 2024 (transcoders, arXiv 2406.11944), Paulo et al. 2025
    (skip, arXiv 2501.18823).
    """

    def read(
        self,
        mllm: WrappedModel,
        samples: Sample | Iterable[Sample],
        *,
        positions: Selector | Sequence[Selector] = "image",
        prompt: Prompt | None = None,
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> FeatureActivations:
        """The activations of every feature at some positions of each sample; by default at the image tokens.

        Cost: one trace, and hidden × feature multiplications at each position.

        Args:
            mllm: The model.
            samples: The samples.
            positions: Groups of the prompt's tokens, or `interp.positions([…])`, as in `interp.Residual`.
            prompt, batch_size, progress: As in `Mllm.trace`.

        Raises:
            ModelError: Not a model, or one whose stream has another size.
            SiteError: A layer or positions that do not exist.
            SampleError, PromptError, ImageTokenMismatch: As in `Mllm.encode`.
        """
        given = as_samples(samples)
        found = self._streams(mllm, given, positions, prompt, batch_size, progress)
        sparse = tuple(self._sparse(mllm, one.reads[0]) for one in found)
        places = tuple(np.asarray(one.reads[0]["position"].values) for one in found)
        return FeatureActivations(sparse, places, found.tokens, tuple(given), found.cost, str(self))

    def fidelity(
        self,
        mllm: WrappedModel,
        samples: Sample | Iterable[Sample],
        *,
        positions: Selector | Sequence[Selector] = "all",
        target: Target = Target("greedy"),  # noqa: B008 - frozen
        prompt: Prompt | None = None,
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> FeatureFidelity:
        """How well the features reconstruct the stream or the MLP: explained variance, L0, change of the answer.

        For a transcoder, the explained variance is that of the MLP's output.

        Cost: one trace and two scores of the target.

        Args:
            mllm: The model.
            samples: The samples.
            positions: The positions that are reconstructed and counted.
            target: The answer whose log-probability is compared. "greedy" is the model's own answer without any edit.
                The rows of the answer's own tokens keep their stream.
            prompt, batch_size, progress: As in `Mllm.trace`.

        Raises:
            ModelError, SiteError, SampleError, PromptError, ImageTokenMismatch: As in `read`.
        """
        given = as_samples(samples)
        found = self._streams(mllm, given, positions, prompt, batch_size, progress)
        sums, active = [], np.zeros(self.n_features, bool)
        for one in found:
            stream, written = _flat(one.reads[0]), _flat(one.reads[-1])
            parts = []
            for rows in _pieces(len(stream), self.n_features):
                own = torch.from_numpy(stream[rows]).to(mllm.device)
                activations = self.encode(own)
                rebuilt = self.decode(activations, own)
                on = activations != 0
                active |= on.any(dim=0).cpu().numpy()
                parts.append(Sums.of(written[rows], rebuilt.cpu().numpy(), int(on.sum())))
            sums.append(sum(parts, Sums.none()))
        how: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
        plain, rebuilt = (
            score(mllm, given, target, prompt, edits, **how)
            for edits in ([], [ReconstructResidual(self, positions)])
        )
        return FeatureFidelity.of(
            given, sums, plain.values, rebuilt.values, int((~active).sum()), self.n_features
        )

    def reads(self, positions: Selector | Sequence[Selector] = "image") -> list[Read]:
        """The reads for `Mllm.trace` of what the features encode (the first) and of what they reconstruct (the last).

        For an autoencoder there is one read, the stream after its layer. For a transcoder there are two, the input and
        the output of the MLP.

        Raises:
            SiteError: Positions that are not valid.
        """
        if self.site == "residual":
            return [Residual([self.layer], positions)]
        return [MLP([self.layer], positions, side) for side in ("input", "output")]

    def _streams(
        self,
        mllm: Any,
        samples: Sequence[Sample],
        positions: Any,
        prompt: Prompt | None,
        size: int,
        bar: bool,
    ) -> Trace:
        if not isinstance(mllm, WrappedModel):
            raise ModelError(
                f"features are read on a model of interp.load or interp.wrap; got {mllm!r:.100}."
            )
        reads: list[Read] = self.reads(positions)
        return trace(mllm, samples, prompt, reads=reads, batch_size=size, progress=bar)

    def _sparse(self, mllm: WrappedModel, residual: xr.DataArray) -> csr_array:
        """The activations, (position, feature), as a CSR array."""
        stream = _flat(residual)
        rows, columns, values = [], [], []
        for at in _pieces(len(stream), self.n_features):
            activations = self.encode(torch.from_numpy(stream[at]).to(mllm.device))
            row, column = activations.nonzero(as_tuple=True)
            rows.append(row.cpu().numpy() + at.start)
            columns.append(column.cpu().numpy())
            values.append(activations[row, column].cpu().numpy())
        places = (np.concatenate(rows), np.concatenate(columns))
        return csr_array((np.concatenate(values), places), shape=(len(stream), self.n_features))


def load_features(
    path: str | os.PathLike[str],
    *,
    layer: int | None = None,
    k: int | None = None,
    site: Literal["mlp"] | None = None,
) -> Features:
    """The features in a file or folder on this machine. Nothing is downloaded, and no pickle is opened.

    Four layouts are read:

    - SAELens: a folder with `cfg.json` and `sae_weights.safetensors` (or `model.safetensors`), of the architectures
      standard, jumprelu, topk and gated, at a residual site ("blocks.N.hook_resid_post" is layer N,
      "…hook_resid_pre" is layer N − 1).
    - Qwen-Scope: `layerN.sae.safetensors` with W_enc (feature, hidden), W_dec (hidden, feature), b_enc and b_dec. It
      is published as `layerN.sae.pt`, a pickle; the error for such a file says how to write its tensors as
      safetensors. N and k (from "L0_50" in the folder's name) are read from the path.
    - Gemma Scope 2: a folder with `config.json` and `params.safetensors` (w_enc, w_dec, b_enc, b_dec, threshold), of
      type "sae" after a layer ("model.layers.N.output") or of type "transcoder", with or without
      affine_skip_connection.
    - circuit-tracer: `layer_N.safetensors` of a transcoder (W_enc (feature, hidden), W_dec, b_enc, b_dec, W_skip,
      activation_function.threshold), with `config.yaml` beside it.

    SAELens' folders may also hold transcoders (transcoder, skip_transcoder, jumprelu_transcoder,
    jumprelu_skip_transcoder). A transcoder must lead from an MLP's input after the norm ("blocks.N.mlp.hook_in",
    "model.layers.N.pre_feedforward_layernorm.output") to what the MLP adds ("blocks.N.hook_mlp_out"). Two similar names
    are refused unless `site="mlp"` says that they mean the MLP's input: "ln2.hook_normalized", which lies before the
    norm's gain where that was not folded into the weights, and "hook_resid_mid", which lies before the norm. Features
    of other sites (heads) and transcoders across layers are refused.

    Args:
        path: The folder, or one .safetensors file.
        layer: The layer, 0-based, where the files do not name it or name a wrong one.
        k: The number of features that a top-k autoencoder keeps, where the files do not name it.
        site: "mlp" for a transcoder of an MLP, from its input after the norm, whose files do not say so.

    Raises:
        ModelError: Files that do not exist, are damaged, or are of another kind or site; a layer or k that is missing.

    Source: the layout and arithmetic of SAELens 6 (sae_lens/saes, MIT) and of circuit-tracer
    (circuit_tracer/transcoder, MIT), and the model cards of Qwen-Scope and Gemma Scope 2.
    """
    return Features(**coder_fields(path, layer, k, site))


def _flat(residual: xr.DataArray) -> np.ndarray:
    """The values of a read of one layer, (position, hidden), float32."""
    return np.ascontiguousarray(residual.values[0], np.float32)


def _pieces(n: int, width: int) -> Iterator[slice]:
    """Slices of n rows, each small enough for its activations to be held densely."""
    size = max(1, AT_ONCE // width)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


@dataclass(frozen=True, eq=False, repr=False)
class FeatureActivations(Sequence[xr.DataArray]):
    """Activations of every feature at some tokens of each sample. Made by `Features.read`.

    `found[i]` is a DataArray (token, feature) of sample i, dense, float32, ≥ 0, with the tokens' unpadded "position".
    With many features, use `found.sparse[i]`, the same values as a SciPy CSR array.

    Attributes:
        sparse: For each sample, (token, feature) as a CSR array, float32, ≥ 0, in the units of `Features.encode`.
        positions: For each sample, the unpadded position of each token in the prompt.
        tokens: For each sample, where its tokens are; `tokens[i].footprints` are in pixels of the image.
        samples: The samples.
        cost: What the trace cost.
        features: The features that were read, as text.
    """

    sparse: tuple[csr_array, ...]
    positions: tuple[np.ndarray, ...]
    tokens: tuple[TokenMap, ...]
    samples: tuple[Sample, ...]
    cost: Cost
    features: str

    def __len__(self) -> int:
        return len(self.sparse)

    def __getitem__(self, index: Any) -> Any:
        coords = {"position": ("token", self.positions[index])}
        return xr.DataArray(
            self.sparse[index].toarray(), dims=["token", "feature"], coords=coords, name="activation"
        )

    @property
    def n_features(self) -> int:
        """The number of features."""
        return _shape(self.sparse[0])[1]

    def of(self, feature: int) -> tuple[np.ndarray, ...]:
        """The activations of one feature, an array (token,) for each sample.

        Raises:
            MapError: A feature that does not exist.
        """
        column = check_whole("feature", feature, 0, most=self.n_features - 1)
        return tuple(one[:, [column]].toarray()[:, 0] for one in self.sparse)

    def top_samples(self, feature: int, n: int = 8, by: str = "max") -> pd.DataFrame:
        """The samples in which a feature is most active, the most active first.

        Columns: place (index among the samples read), sample, group, value, position (of the token where the feature is
        most active), share (of the sample's tokens where it is active, in [0, 1]). Samples in which it is never active
        are left out. The strongest activations look cleaner than the rest: look at weaker ones too before you name a
        feature.

        Args:
            feature: The feature, 0-based.
            n: The most samples to return.
            by: "max" ranks by the largest activation in the sample, "mean" by the mean over its tokens.

        Raises:
            MapError: A feature that does not exist, or another `by`.
        """
        check_one_of("by", by, ("max", "mean"))
        n = check_whole("n", n, 1)
        rows = []
        for place, values in enumerate(self.of(feature)):
            sample = self.samples[place]
            if values.any():
                rows.append(
                    {
                        "place": place,
                        "sample": sample.id,
                        "group": sample.group,
                        "value": float(values.max() if by == "max" else values.mean()),
                        "position": int(self.positions[place][values.argmax()]),
                        "share": float((values != 0).mean()),
                    }
                )
        columns = ["place", "sample", "group", "value", "position", "share"]
        found = pd.DataFrame(rows, columns=columns).sort_values("value", ascending=False, kind="stable")
        return found.head(n).reset_index(drop=True)

    def top_features(self, n: int = 20) -> pd.DataFrame:
        """The features with the largest mean activation over all tokens of all samples, the largest first.

        Columns: feature, mean (over all tokens, zeros included), max, share (of tokens where it is active, in [0, 1]),
        samples (the number of samples in which it is active).
        """
        n = check_whole("n", n, 1)
        n_tokens = sum(_shape(one)[0] for one in self.sparse)
        total, most, active, samples = np.zeros((4, self.n_features))
        for one in self.sparse:
            columns, values = one.indices, one.data
            np.add.at(total, columns, values)
            np.maximum.at(most, columns, values)
            counts = np.bincount(columns, minlength=self.n_features)
            active, samples = active + counts, samples + (counts > 0)
        order = np.argsort(-total, kind="stable")[:n]
        return pd.DataFrame(
            {
                "feature": order,
                "mean": total[order] / n_tokens,
                "max": most[order],
                "share": active[order] / n_tokens,
                "samples": samples[order].astype(int),
            }
        )

    def to_dataframe(self) -> pd.DataFrame:
        """One row per activation that is not 0: sample (its index), token, position, feature, activation."""
        frames = []
        for place, one in enumerate(self.sparse):
            own = one.tocoo()
            row, column = own.coords
            where = {"sample": place, "token": row, "position": self.positions[place][row]}
            frames.append(pd.DataFrame({**where, "feature": column, "activation": own.data}))
        return pd.concat(frames, ignore_index=True)

    def __repr__(self) -> str:
        n_tokens = sum(_shape(one)[0] for one in self.sparse)
        active = sum(one.nnz for one in self.sparse) / max(n_tokens, 1)
        return (
            f"FeatureActivations({count(len(self), 'sample')}, {n_tokens} tokens, {self.n_features} features, "
            f"{active:.1f} active at a token; {self.features})"
        )


def _shape(one: csr_array) -> tuple[int, int]:
    """(token, feature)."""
    rows, columns = one.shape  # pyright: ignore[reportGeneralTypeIssues]
    return int(rows), int(columns)


class Sums(NamedTuple):
    """Sums over positions, float64, that give the explained variance of any union of positions."""

    n: int
    error: float
    squares: float
    total: Float[np.ndarray, " hidden"] | float
    active: int

    @classmethod
    def none(cls) -> Sums:
        """The sums over no position."""
        return cls(0, 0.0, 0.0, 0.0, 0)

    @classmethod
    def of(
        cls, stream: Float[np.ndarray, "row hidden"], rebuilt: Float[np.ndarray, "row hidden"], active: int
    ) -> Sums:
        """The sums over some positions; `active` is the number of activations that are not 0."""
        wide = stream.astype(np.float64)
        error = float(((wide - rebuilt) ** 2).sum())
        return cls(len(wide), error, float((wide**2).sum()), wide.sum(axis=0), active)

    def __add__(self, other: Sums) -> Sums:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Sums(
            self.n + other.n,
            self.error + other.error,
            self.squares + other.squares,
            self.total + other.total,
            self.active + other.active,
        )

    @property
    def explained_variance(self) -> float:
        """1 − Σ|h − ĥ|² / Σ|h − mean h|², at most 1; NaN where all positions are equal."""
        if not self.n:
            return np.nan
        spread = self.squares - float(np.sum(np.square(self.total))) / self.n
        return 1 - self.error / spread if spread > 1e-12 * max(self.squares, 1e-30) else np.nan

    @property
    def l0(self) -> float:
        """The mean number of active features at a position."""
        return self.active / self.n if self.n else np.nan


@dataclass(frozen=True, eq=False, repr=False)
class FeatureFidelity:
    """How well features reconstruct the stream, or the MLP's output. Made by `Features.fidelity`.

    Attributes:
        samples: One row per sample: sample, group, n_positions, explained_variance (about the sample's own mean), l0,
            plain and reconstructed (log p of the target, nats, without and with the stream replaced), change
            (reconstructed − plain, nats; below 0 the answer lost probability).
        explained_variance: 1 − Σ|h − ĥ|² / Σ|h − mean h|² over all positions of all samples. 1 is exact, 0 is as good
            as the mean stream at every position, below 0 is worse. Transcoders are often reported by the fraction of
            variance unexplained (FVU), 1 − explained variance. A few positions of huge norm, such as the first token of
            many models, can dominate it.
        l0: The mean number of active features at a position.
        change: The mean of the samples' change, in nats. Near 0, what the features leave out does not matter to this
            answer; a wrong or unsure answer can also gain.
        n_inactive: The number of features that were never active on these samples.
        n_features: The number of features.
    """

    samples: pd.DataFrame
    explained_variance: float
    l0: float
    change: float
    n_inactive: int
    n_features: int

    @classmethod
    def of(
        cls,
        samples: Sequence[Sample],
        sums: Sequence[Sums],
        plain: Float[np.ndarray, " sample"],
        rebuilt: Float[np.ndarray, " sample"],
        n_inactive: int,
        n_features: int,
    ) -> FeatureFidelity:
        """The fidelity, from the sums and the scores of each sample."""
        frame = pd.DataFrame(
            {
                "sample": [one.id for one in samples],
                "group": [one.group for one in samples],
                "n_positions": [one.n for one in sums],
                "explained_variance": [one.explained_variance for one in sums],
                "l0": [one.l0 for one in sums],
                "plain": plain,
                "reconstructed": rebuilt,
                "change": rebuilt - plain,
            }
        )
        whole = sum(sums, Sums.none())
        change = float(frame.change.mean())
        return cls(frame, whole.explained_variance, whole.l0, change, n_inactive, n_features)

    def __repr__(self) -> str:
        return (
            f"FeatureFidelity({count(len(self.samples), 'sample')}: explained variance {self.explained_variance:.3f}, "
            f"L0 {self.l0:.1f}, log p {self.change:+.3f} nats with the reconstruction, {self.n_inactive} of "
            f"{self.n_features} features never active)"
        )
