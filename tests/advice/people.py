# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of curation, reader studies and agreement."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from interp import curation, indicators, reader_study
from interp.data import Samples, bundled
from interp.inputs.sample import Sample
from interp.study import Grid, LayerSweep
from interp.tracing import Cost
from tests.curation.rated import rating_file, to_rate
from tests.reader_study.cases import answer_file, cases, maps

CURATION = [
    ("rated(answered('Ana'), [])", "Pass the samples that are to be rated", "rated(answered('Ana'))"),
    ("curation.Ratings([one], ())", "read_ratings(paths, samples)", "curation.read_ratings([answered('Ana')], TO_RATE)"),
    ("curation.curate(rated(answered('Ana')), questions={'x': '?'})", "Read ratings.edits for the ids", "curation.curate(rated(with_edit()), questions={rated(with_edit()).edits['sample'][0]: '?'})"),
    ("curation.curate(rated(answered('Ana', 1))).save(new_place('kept.jsonl'))", "Read decisions for the reasons", "curation.curate(rated(answered('Ana', 1))).decisions.reason"),
    ("curation.read_ratings(answered('Ana'), TO_RATE)", "Write [path]", "curation.read_ratings([answered('Ana')], TO_RATE)"),
    ("rated(answered(' '))", "Enter a name or code on the page", "rated(answered('Ana'))"),
    ("rated(answered('Ana', extra=1))", "Pass a file that the page saved", "rated(answered('Ana'))"),
    ("curation.read_ratings([answered('Ana'), answered('ana')], TO_RATE)", "one file for each person", "curation.read_ratings([answered('Ana')], TO_RATE)"),
    ("curation.read_ratings([answered('Ana'), answered('ana')], TO_RATE)", "change the name in one of the files", "curation.read_ratings([answered('Ana'), answered('Ann')], TO_RATE)"),
    ("rated(answered('Ana', form='x'))", "saved on the page of these very samples", "rated(answered('Ana'))"),
    ("rated(with_edit('  '))", "Leave it out where it was not edited", "rated(answered('Ana'))"),
]  # fmt: skip
READERS = [
    ("read_key(key_file(format='x'))", "the key that write_pack wrote beside the page", "read_key(key_file())"),
    ("read_key(key_file(seed=None))", "the key that write_pack wrote, unchanged", "read_key(key_file())"),
    ("read_key(sealed(1).key, page=sealed(2).page)", "the two files that one write_pack wrote", "read_key(sealed(1).key, page=sealed(1).page)"),
    ("sealed(2, sealed(1).key)", "Write this study elsewhere", "sealed(2, new_place('key.json'))"),
    ("sealed(2, sealed(1).key)", "delete that key if no reader has its page", "sealed(2, deleted(sealed(1).key))"),
    ("pack_of({'plain': OLD})", "such as {'plain': maps, 'VGRefine': maps}", "pack_of({'plain': OLD, 'VGRefine': NEW})"),
    ("pack_of({'plain': LAYERS, 'new': NEW})", "Maps(tuple(a.sel(layer=…) for a in maps.arrays), maps.tokens, maps.cost)", "pack_of({'plain': indicators.Maps(tuple(a.sel(layer=1) for a in LAYERS.arrays), LAYERS.tokens, LAYERS.cost), 'new': NEW})"),
    ("read_study(PACK.key, [choosing({})])", "saved after choosing maps", "read_study(PACK.key, [choosing({'1': 'A'})])"),
    ("stored_maps({'a': (sweep_of(2), 1), 'b': (sweep_of(3), 1)})", "Run both on the same data", "stored_maps({'a': (sweep_of(2), 1), 'b': (sweep_of(2), 2)})"),
    ("stored_maps({'a': sweep_of(2)})", "such as (study.run(), 14)", "stored_maps({'a': (sweep_of(2), 4)})"),
    ("stored_maps({'a': (in_a_grid(), 1)})", "the result of one study, not of a Grid", "stored_maps({'a': (sweep_of(2), 1)})"),
]  # fmt: skip
AGREEMENT = [
    ("stats.krippendorff_alpha([1, 2])", "one row for each rater", "stats.krippendorff_alpha([[1, 2], [1, 2]])"),
    ("stats.krippendorff_alpha([[1, np.inf]])", "Mark what is missing as NaN", "stats.krippendorff_alpha([[1, np.nan]])"),
    ("stats.weighted_kappa([1, 2], [1], [1, 2])", "NaN where it was not rated", "stats.weighted_kappa([1, 2], [1, np.nan], [1, 2])"),
    ("stats.weighted_kappa([1, 5], [1, 2], [1, 2])", "every value of the scale in values=", "stats.weighted_kappa([1, 5], [1, 2], values=[1, 2, 3, 4, 5])"),
    ("stats.two_way_share([0, 3], ['a', 'b'], ['x', 'y'])", "Use two_way for other numbers", "stats.two_way([0, 3], ['a', 'b'], ['x', 'y'])"),
]  # fmt: skip
ROWS: list[tuple[str, str, str]] = [*CURATION, *READERS, *AGREEMENT]
"""(a call that fails, words of its message, a call that follows them)"""

ELSEWHERE: dict[str, str] = {
    "no sample has a map in every run": "every sample of one run has a map at each layer, or the run ends with an error",
    "Krippendorff's alpha needs the library": "tests/stats/test_agreement.py::test_a_missing_library_names_the_extra",
}  # the beginning of a message: why no row follows it, or the test that does

TO_RATE, CASES = to_rate(2), cases(2)
OLD, NEW = maps(2, 1), maps(2, 2)


def new_place(name: str) -> Path:
    """A path in a new folder."""
    return Path(tempfile.mkdtemp()) / name


def answered(by: str, score: int = 5, **changes: Any) -> Path:
    """The file of a rater who gave one sample this score throughout."""
    return rating_file(new_place("a.json"), TO_RATE, by, {0: (score,) * 3}, **changes)


def with_edit(text: str = "Other?") -> Path:
    """The file of a rater who edited a question."""
    return rating_file(new_place("a.json"), TO_RATE, "Ana", {0: (5, 5, 5)}, {0: text})


def rated(file: Path, samples: Samples | list[Sample] = TO_RATE) -> curation.Ratings:
    """The ratings in one file."""
    return curation.read_ratings([file], samples)  # pyright: ignore[reportArgumentType]


def sealed(seed: int, key: Path | None = None) -> reader_study.Pack:
    """A pack by a seed."""
    given = {"old": OLD, "new": NEW}
    place = new_place("key.json") if key is None else key
    return reader_study.write_pack(CASES, given, page=new_place("page.html"), key=place, seed=seed, side=64)


def pack_of(given: Mapping[str, indicators.Maps]) -> reader_study.Pack:
    """A pack of these maps."""
    return reader_study.write_pack(
        CASES, given, page=new_place("page.html"), key=new_place("key.json"), seed=0, side=64
    )


def key_file(**changes: Any) -> Path:
    """A key with something changed."""
    made = sealed(0).key
    made.write_text(json.dumps(json.loads(made.read_text()) | changes))
    return made


def deleted(path: Path) -> Path:
    """The path of a file that is no more."""
    path.unlink()
    return path


@cache
def sweep_of(n: int) -> Any:
    """The result of a sweep over n scenes."""
    return LayerSweep(data=bundled("natural", n=n), metrics=("ar",)).run(new_place("runs"), progress=False)


@cache
def in_a_grid() -> Any:
    """The result of two sweeps."""
    base = LayerSweep(data=bundled("natural", n=2), metrics=("ar",))
    return Grid(base, seed=[0, 1]).run(new_place("runs"), progress=False)


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    pack = sealed(3)
    layered = tuple(one.expand_dims(layer=[1]) for one in OLD.arrays)
    helpers = (answered, with_edit, rated, sealed, pack_of, key_file, deleted, sweep_of, in_a_grid, new_place)
    return {
        **{helper.__name__: helper for helper in helpers},
        **{name: getattr(reader_study, name) for name in reader_study.__all__},
        "choosing": lambda given: answer_file(new_place("a.json"), reader_study.read_key(pack.key), "Ana", given),
        "curation": curation, "indicators": indicators, "TO_RATE": TO_RATE, "OLD": OLD, "NEW": NEW, "PACK": pack,
        "LAYERS": indicators.Maps(layered, OLD.tokens, Cost()),
    }  # fmt: skip
