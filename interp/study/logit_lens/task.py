"""The task of a `LensSweep`: words that a lens reads at each sample's image tokens, inside the boxes and outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import xarray as xr

from interp.errors import InterpError, RunError, SampleError
from interp.inputs.tokens import TokenMap
from interp.metrics import auroc
from interp.run import FAILURES, Outcome
from interp.run.task import failure
from interp.study.dataframes import NAME, SAMPLE_FIELDS
from interp.study.first_token import answer_columns
from interp.study.logit_lens.wording import lens_kind
from interp.study.task import TableRows, suitable_threads
from interp.study.transformer_lens import LensTask
from interp.study.truth import tokens_inside
from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import Batch
from interp.tracing.lens.logit_lens import word_ids
from interp.tracing.word_lenses import JacobianLens, LatentLens, WordReadings
from interp.tracing.word_lenses.lens_names import LOGIT, as_readings
from interp.tracing.word_lenses.word_lens import OpenedLens, read_tokens

__all__ = ["OTHERS", "OWN", "WORDS", "LensSweepTask"]

WORDS = ("label", "answer")
OWN, OTHERS = "own word", "another's word"
SCORES = pa.schema(
    [
        ("index", pa.int64()),
        ("word", NAME),
        ("layer", pa.int32()),
        ("of", NAME),
        ("measure", NAME),
        ("value", pa.float64()),
    ]
)
SAMPLES = pa.schema(
    [
        *SAMPLE_FIELDS,
        ("label", pa.string()),
        ("predicted", pa.string()),
        ("correct", pa.bool_()),
        ("logprob", pa.float64()),
        ("n_tokens", pa.int32()),
        ("n_box_tokens", pa.int32()),
        ("image_index", pa.list_(pa.int32())),
        ("footprints", pa.list_(pa.float32())),
    ]
)
MAPS = pa.schema(
    [
        ("index", pa.int64()),
        ("word", pa.string()),
        ("said", pa.string()),
        ("layer", pa.int32()),
        ("map", pa.list_(pa.float32())),
    ]
)
"""`map`: the score of the word `said` at each image token; NaN where the lens did not read the token."""


class LensSweepTask(LensTask):
    """Computes a `LensSweep`."""

    name = "lens-sweep"

    def __init__(self, study: Any, mllm: Any) -> None:
        super().__init__(study, mllm)
        self._ready: tuple[OpenedLens, Meter] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_ready": None}

    @property
    def opened(self) -> tuple[OpenedLens, Meter]:
        """The lens on the model, ready for every word of the study, and the meter that counts its passes.

        Raises:
            RunError: The lens cannot be opened. No sample causes that, so the run stops and can be resumed.
        """
        if self._ready is None:
            meter = Meter(self.mllm.device)
            try:
                with suitable_threads(self.mllm):
                    self._ready = self.study.lens.open(self.mllm, self._every_word, meter), meter
            except InterpError as error:
                raise RunError(f"the {lens_kind(self.study.lens)} lens cannot be opened: {error}") from error
        return self._ready

    @cached_property
    def _every_word(self) -> list[str]:
        """The words of all samples, sorted; a corpus of templates is made from them."""
        found = (
            self._word(index, word) for index in range(len(self.study.data)) for word in self.study.words
        )
        return sorted({text for text in found if text})

    @property
    def reads_labels(self) -> bool:
        """True, because a label is one of the words."""
        return True

    def to_dict(self) -> dict[str, Any]:
        """Everything the numbers depend on."""
        study = self.study
        own = {"words": list(study.words), "rule": study.rule, "seed": study.seed}
        found = {**super().to_dict(), **own}
        if study.lens == LOGIT:
            return found
        if study.lens.kind != JacobianLens.kind:
            del found["through"]
        return {**found, "lens": study.lens.to_dict()}

    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables: scores, one row per sample, and the maps."""
        return {"scores": SCORES, "samples": SAMPLES, "maps": MAPS}

    def joined(self) -> tuple[str, ...]:
        """All tables except the maps."""
        return ("scores", "samples")

    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """The rows of each sample."""
        samples = [self.study.data[index] for index in indices]
        batch = self.mllm.encode(samples, self.study.prompt)
        found, cost = self._read(batch, self._vocabulary(indices))

        def rows(place: int, index: int) -> TableRows:
            return self._rows(index, found[place], batch.tokens[place], found.logits.values[place])

        return Outcome(self.each(indices, rows), cost)

    def _read(self, batch: Batch, words: list[str]) -> tuple[WordReadings, dict[str, float]]:
        """The scores that the lens reads, and their cost."""
        if self.study.lens == LOGIT:
            with suitable_threads(self.mllm):
                found = as_readings(self.lens.logit_lens(batch, words, top=1))
            return found, {"forwards": 1.0, "tokens": float(batch.inputs["input_ids"].numel())}
        opened, meter = self.opened
        before = meter.forwards, meter.tokens
        with suitable_threads(self.mllm):
            found = read_tokens(opened, self.mllm, batch, words, meter)
        return found, {
            "forwards": float(meter.forwards - before[0]),
            "tokens": float(meter.tokens - before[1]),
        }

    def _find(self, word: str) -> None:
        """Raise an error for a word that the lens cannot read."""
        if self.study.lens == LOGIT:
            word_ids(self.tokenizer, word)
        else:
            self.opened[0].find([word], 0)

    def _vocabulary(self, indices: tuple[int, ...]) -> list[str]:
        """The words of these samples and of their partners that the lens can read."""
        wanted = [
            self._word(i, word) for index in indices for word in self.study.words for i in self._pair(index)
        ]
        kept = []
        for text in dict.fromkeys(text for text in wanted if text):
            try:
                self._find(text)
            except RunError:  # an error of the lens, not of the word
                raise
            except InterpError:
                continue
            kept.append(text)
        return kept

    @property
    def _unreadable(self) -> str:
        """Why the lens cannot read a word; the word comes before it in the sentence."""
        if lens_kind(self.study.lens) == LatentLens.kind:
            return "is not in the corpus, after a text's first token."
        return "is not one token of this vocabulary."

    def _pair(self, index: int) -> Iterator[int]:
        yield index
        other = self._partners[index]
        if other is not None:
            yield other

    def _word(self, index: int, word: str) -> str | None:
        """The word for a sample's label or answer: the last word of the label, or the whole answer; None for none."""
        sample = self.study.data[index]
        text = str(sample.meta.get("label") or "") if word == "label" else str(sample.answer or "")
        return (text.split() or [None])[-1] if word == "label" else text or None

    def _rows(self, index: int, found: xr.Dataset, tokens: TokenMap, logits: np.ndarray) -> TableRows:
        sample = self.study.data[index]
        inside = tokens_inside(tokens, sample, self.study.rule)
        seen = np.asarray(~np.isnan(tokens.footprints).any(axis=1))
        if not inside.any() or inside[seen].all():
            raise SampleError(
                "the boxes cover no image token, or all of them, so inside and outside cannot be compared."
            )
        row = {
            **self._sample_fields(index),
            "label": sample.meta.get("label"),
            **answer_columns(logits, sample, self.study.prompt, self.tokenizer),
            "n_tokens": tokens.n,
            "n_box_tokens": int(inside.sum()),
            "image_index": tokens.image_index.tolist(),
            "footprints": tokens.footprints.astype(np.float32).ravel().tolist(),
        }
        out: dict[str, list[Any]] = {"scores": [], "samples": [row], "maps": [], FAILURES: []}
        found = found.reindex(token=np.arange(tokens.n))
        read = ~np.isnan(found.score.values).any(axis=(0, 2))
        if found.sizes["word"] and not ((inside & read).any() and (seen & ~inside & read).any()):
            raise SampleError(
                "the lens read no token inside the boxes, or none outside, of those that n_tokens leaves. Raise "
                "n_tokens."
            )
        for word in self.study.words:
            self._add_word(out, index, word, found, (inside & read, seen & read))
        return out

    def _add_word(
        self,
        out: dict[str, list[Any]],
        index: int,
        word: str,
        found: xr.Dataset,
        masks: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """The scores and maps of one word of a sample, or why there are none."""
        own = self._word(index, word)
        if own is None or own not in found.word.values:
            reason = f"the sample has no {word}." if own is None else f"{own!r} {self._unreadable}"
            out[FAILURES].append(failure(self, index, "undefined", reason, metric=word))
            return
        said = {OWN: own}
        partner = self._partners[index]
        other = None if partner is None else self._word(partner, word)
        if other and other in found.word.values and other.casefold() != own.casefold():
            said[OTHERS] = other
        for of, text in said.items():
            lines = found.score.sel(word=text).values.astype(np.float64)
            first = found["rank"].sel(word=text).values == 0
            for layer, line, top in zip(found.layer.values.tolist(), lines, first, strict=True):
                key = {"index": index, "word": word, "layer": layer, "of": of}
                out["scores"] += [
                    {**key, "measure": m, "value": v} for m, v in measures(line, top, *masks).items()
                ]
                if of == OWN:
                    values = line.astype(np.float32).tolist()
                    out["maps"].append(
                        {"index": index, "word": word, "said": text, "layer": layer, "map": values}
                    )


def measures(line: np.ndarray, first: np.ndarray, inside: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """The measures of one layer's map of scores; tokens without a footprint are left out."""
    outside = seen & ~inside
    means = float(line[inside].mean()), float(line[outside].mean())
    return {
        "inside": means[0],
        "outside": means[1],
        "gap": means[0] - means[1],
        "auroc": float(auroc(line[seen], inside[seen])),
        "first inside": float(first[inside].mean()),
        "first outside": float(first[outside].mean()),
    }
