"""The task of `StatedBoxes`: the boxes in each sample's text, compared with the expert's boxes and with a map."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from interp.errors import RunError, SampleError
from interp.indicators import Maps
from interp.indicators.map_masks import map_mask, upsampled
from interp.inputs.box_conventions import BoxConvention, convention_of
from interp.inputs.box_text import ParsedBoxes, parse_boxes
from interp.inputs.boxes import Box
from interp.inputs.masks import filled, union
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.metrics import attention_ratio, boxes_iou, pixel_iou
from interp.models.resizing import resized_sizes
from interp.run import Outcome, digest
from interp.study.baselines import moved_boxes
from interp.study.dataframes import NAME, SAMPLE_FIELDS
from interp.study.prefix_cost import stored_cost
from interp.study.samples_task import SamplesTask
from interp.study.task import TableRows, suitable_threads
from interp.tracing.cost import Cost
from interp.tracing.execution import ends

__all__ = ["MEASURES", "StatedTask"]

MEASURES = (
    "stated", "iou", "iou_shuffled", "ar_stated", "ar_expert", "ar_gap", "mask_stated", "mask_expert", "area_stated",
    "area_expert",
)  # fmt: skip
SCORES = pa.schema([("index", pa.int64()), ("measure", NAME), ("value", pa.float64())])
SAMPLES = pa.schema(
    [
        *SAMPLE_FIELDS,
        ("said", pa.string()),
        ("n_stated", pa.int32()),
        ("n_unparsed", pa.int32()),
        ("unparsed", pa.string()),
        ("boxes", pa.string()),
        ("labels", pa.string()),
        ("image_index", pa.list_(pa.int32())),
        ("footprints", pa.list_(pa.float32())),
    ]
)
MAPS = pa.schema([("index", pa.int64()), ("map", pa.list_(pa.float32()))])


class StatedTask(SamplesTask):
    """Computes `StatedBoxes`."""

    name = "stated-boxes"

    def to_dict(self) -> dict[str, Any]:
        """Everything the stored numbers depend on; given answers by their hash."""
        study = self.study
        own = {name: getattr(study, name) for name in ("generate", "upsample", "threshold", "rule", "seed")}
        own["layers"] = None if study.layers is None else list(study.layers)
        own["answers"] = (
            None if study.answers is None else digest({"answers": [list(one) for one in study.answers]})
        )
        return {**super().to_dict(), **own, "convention": self._convention.to_dict()}

    @property
    def _convention(self) -> BoxConvention:
        return convention_of(self.study.convention, self.mllm.family)

    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables: scores, one row per sample, and the maps."""
        return {"scores": SCORES, "samples": SAMPLES, "maps": MAPS}

    def joined(self) -> tuple[str, ...]:
        """All tables, because the page shows the maps."""
        return ("scores", "samples", "maps")

    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """The rows of each sample, from its text and its map."""
        maps, paid = self._maps(indices)
        self._check_dims(maps)
        texts, said = self._texts(indices)
        cost = said if paid else maps.cost + said
        return Outcome(self._all_rows(indices, maps, texts), stored_cost(cost))

    def rows(self, indices: tuple[int, ...], maps: Maps) -> TableRows:
        """Each sample's rows; the texts are generated here."""
        return self._all_rows(indices, maps, self._texts(indices)[0])

    def _texts(self, indices: Sequence[int]) -> tuple[dict[int, str | None], Cost]:
        """The text of each sample, and the cost of generating them; a sample without a given text is no key."""
        study = self.study
        if study.answers is not None:
            stored = dict(study.answers)
            known = {index: self.identity(index)[0] for index in indices}
            return {index: stored[name] for index, name in known.items() if name in stored}, Cost()
        samples = [study.data[index] for index in indices]
        with suitable_threads(self.mllm):
            trace = self.mllm.trace(samples, prompt=study.prompt, generate=study.generate)
        skipped = ends(self.mllm) | {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        kept = [[token for token in one.ids[one.n_reasoning :] if token not in skipped] for one in trace]
        # trace.answers would leave out marks such as <box>, which are special tokens of some tokenizers
        texts = [str(self.tokenizer.decode(ids, skip_special_tokens=False)) for ids in kept]
        return dict(zip(indices, texts, strict=True)), trace.cost

    def _all_rows(self, indices: tuple[int, ...], maps: Maps, texts: Mapping[int, str | None]) -> TableRows:
        convention = self._convention
        seen = self._resized(indices) if convention.frame == "resized" else {}

        def rows(place: int, index: int) -> TableRows:
            sample = self.study.data[index]
            if sample.video is not None or len(sample.images) != 1:
                raise SampleError(
                    "a stated box does not say which image it is on, so a sample must have one image; this one has "
                    f"{len(sample.images)} images or frames."
                )
            if index not in texts:
                raise SampleError(f"answers hold no text for the sample {sample.id!r}.")
            size = sample.sizes[0]
            found = parse_boxes(texts[index], convention, size, resized=seen.get(index))
            values, tokens = self._map(maps, place), maps.tokens[place]
            scores = self._scores(index, found, values, tokens)
            lines = [{"index": index, "measure": name, "value": scores[name]} for name in MEASURES]
            row = self._row(index, texts[index], found, tokens)
            return {
                "scores": lines,
                "samples": [row],
                "maps": [{"index": index, "map": values.astype(np.float32)}],
            }

        return self.each(indices, rows)

    def _resized(self, indices: Sequence[int]) -> dict[int, tuple[int, int]]:
        """(width, height) in pixels of each sample's first image after its processor resized it."""
        batch = self.mllm.encode([self.study.data[index] for index in indices], prompt=self.study.prompt)
        sizes = [resized_sizes(one.inputs, self.mllm.processor) for one in batch.singles]
        return {index: own[0] for index, own in zip(indices, sizes, strict=True) if own}

    def _check_dims(self, maps: Maps) -> None:
        """Stop a run whose maps have other dimensions or lack the study's layers, because every sample would fail.

        Raises:
            RunError: The maps have other dimensions or lack layers; raised after the first micro-batch.
        """
        for array in maps:
            if array.dims not in (("layer", "token"), ("token",)):
                raise RunError(
                    f"stated boxes are compared with a map ([layer,] token); the indicator gives {array.dims}. Use "
                    "per_head=False."
                )
            known = array["layer"].values.tolist() if "layer" in array.dims else []
            missing = [layer for layer in self.study.layers or () if layer not in known]
            if known and missing:
                raise RunError(
                    f"layers={list(self.study.layers)} are averaged, and the maps have {known[0]} … {known[-1]}, not "
                    f"{missing}. Leave these out."
                )

    def _map(self, maps: Maps, place: int) -> Float[np.ndarray, " token"]:
        """The sample's map, averaged over the layers."""
        array = maps[place]
        if "layer" in array.dims:
            array = array if self.study.layers is None else array.sel(layer=list(self.study.layers))
            array = array.mean("layer", dtype=np.float64)
        return np.asarray(array.values, np.float64)

    def _scores(
        self, index: int, found: ParsedBoxes, values: Float[np.ndarray, " token"], tokens: TokenMap
    ) -> dict[str, float]:
        """Every measure of one sample."""
        sample = self.study.data[index]
        size, stated, expert = sample.sizes[0], list(found.boxes), list(sample.boxes)
        mask = map_mask(upsampled(values, tokens, 0, self.study.upsample), self.study.threshold)
        inside, truth = filled(stated, size), _truth(sample, size)
        ratios = {
            name: self._ratio(values, tokens, boxes)
            for name, boxes in (("stated", stated), ("expert", expert))
        }
        nothing = float("nan")
        return {
            "stated": float(bool(stated)),
            "iou": boxes_iou(stated, expert),
            "iou_shuffled": boxes_iou(stated, self._borrowed(index)),
            "ar_stated": ratios["stated"],
            "ar_expert": ratios["expert"],
            "ar_gap": ratios["stated"] - ratios["expert"],
            "mask_stated": pixel_iou(mask, inside) if stated else nothing,
            "mask_expert": pixel_iou(mask, truth),
            "area_stated": float(inside.mean()) if stated else nothing,
            "area_expert": float(truth.mean()),
        }

    def _ratio(self, values: Float[np.ndarray, " token"], tokens: TokenMap, boxes: Sequence[Box]) -> float:
        """The attention ratio inside the boxes, over the tokens with a footprint; NaN without boxes."""
        if not boxes:
            return float("nan")
        seen = ~np.isnan(tokens.footprints).any(axis=1)
        inside = tokens.mask(boxes, rule=self.study.rule)
        return float(attention_ratio(values[seen], inside[seen]))

    def _borrowed(self, index: int) -> list[Box]:
        """The boxes of another sample, moved to the same relative place in this sample's image."""
        partner = self._partners[index]
        if partner is None:
            return []
        lender = self.study.data[partner]
        return list(moved_boxes(lender.boxes, lender.sizes, self.study.data[index].sizes))

    def _row(self, index: int, said: str | None, found: ParsedBoxes, tokens: TokenMap) -> dict[str, Any]:
        return {
            **self._sample_fields(index),
            "said": said,
            "n_stated": len(found.found),
            "n_unparsed": len(found.unparsed),
            "unparsed": "; ".join(f"{one.reason}: {one.text}" for one in found.unparsed),
            "boxes": json.dumps([list(box.as_tuple()) for box in found.boxes]),
            "labels": json.dumps([one.label for one in found.found], ensure_ascii=False),
            "image_index": tokens.image_index.astype(np.int32),
            "footprints": tokens.footprints.astype(np.float32).ravel(),
        }


def _truth(sample: Sample, size: tuple[int, int]) -> Bool[np.ndarray, "row col"]:
    """The pixels of the expert's masks, or of the boxes where there is no mask."""
    return union(sample.masks, size) if sample.masks else filled(sample.boxes, size)
