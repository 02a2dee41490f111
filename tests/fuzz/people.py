"""Public functions of pages for raters and readers, with arguments that they take, for `trials`."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

import interp
from interp import curation, indicators, reader_study
from interp.inputs.footprints import squash
from interp.report.answer_form import FormAnswers
from interp.tracing import Cost
from tests.fuzz.result_calls import folder
from tests.fuzz.trials import Call, given
from tests.fuzz.value_calls import samples


def people_calls() -> list[Call]:
    """Pages for raters and readers, and what is made of their files."""
    home = folder()
    rated, two = samples(), {"old": _plain_maps(0), "new": _plain_maps(1)}
    answers = home / "answers.json"
    pack = reader_study.write_pack(
        rated, two, page=home / "page.html", key=home / "key.json", seed=0, side=64
    )
    key = reader_study.read_key(pack.key)
    answered = {"format": "interp reader study", "version": 1, "form": key.form, "by": "Ana", "answers": []}
    answers.write_text(json.dumps(answered | {"answers": [{"item": "1", "values": {"choice": "A"}}]}))
    result = reader_study.read_study(key, [answers])
    ratings = curation.Ratings(rated, (FormAnswers("Ana", {"0": {"relevance": 5}}),))
    curated = curation.curate(ratings)
    pages = given(samples=rated, maps=two, page=home / "p.html", key=home / "k.json", seed=0, side=64)
    return [
        Call("rating_page", curation.rating_page, given(samples=rated, path=home / "rate.html")),
        Call("read_ratings", curation.read_ratings, given(paths=[answers], samples=rated)),
        Call("Ratings", curation.Ratings, given(samples=rated, answers=ratings.answers)),
        Call("Ratings.table", ratings.table, given(scale="relevance")),
        Call("curate", curation.curate, given(ratings=ratings)),
        Call("Curation.save", curated.save, given(path=home / "kept.jsonl")),
        Call("Curation.report", curated.report, given(path=home / "curation.html")),
        Call("write_pack", reader_study.write_pack, pages),
        Call("read_key", reader_study.read_key, given(path=pack.key, page=pack.page)),
        Call("read_study", reader_study.read_study, given(key=key, answers=[answers], page=pack.page)),
        Call("stored_maps", reader_study.stored_maps, given(runs={"old": 5})),
        Call("ReaderResult.preference", result.preference),
        Call("ReaderResult.per_reader", result.per_reader),
        Call("ReaderResult.report", result.report, given(path=home / "readers.html")),
    ]


def _plain_maps(seed: int) -> indicators.Maps:
    """Maps of `samples` by no model."""
    found = squash((80, 64), (2, 2))
    tokens = interp.TokenMap(np.arange(4), found.boxes, (2, 2), found.views, found.image, ((80, 64),), 4)
    draws = np.random.default_rng(seed).random((2, 4))
    return indicators.Maps(tuple(xr.DataArray(one, dims=["token"]) for one in draws), (tokens,) * 2, Cost())
