"""`interp models`: the model families, what each supports and how it was checked, in a table that fits."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import tyro

from interp.errors import ModelError
from interp.inputs.text import meant
from interp.terminal import console, table

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from interp.conformance.family_facts import FamilyFacts

__all__ = ["models"]

UNLIMITED = 10_000
"""Columns in which any table fits: a table is measured in them, since rich measures no more than there is room for."""
_ATTENDS = {
    "causal": "none",
    "image_blocks": "its own image",
    "sliding_image_blocks": "its own image, in sliding layers",
    "images": "all images",
    "prefix": "the prompt",
}
"""What the values of an adapter's `attends` mean, in plain words."""

_FACTS = ("maps", "attends", "video", "tower", "prefix", "images", "executors", "checked")


def models(family: Annotated[str | None, tyro.conf.Positional] = None) -> int:
    """List the model families: their image tokens, what each supports, and how it was checked.

    Args:
        family: one family, such as llava; by default all.
    """
    from interp.conformance.check_result import read_record
    from interp.conformance.family_facts import every_family, known_types, without_maps

    record, shown, known = read_record(), console(), known_types()
    every = every_family()
    found_here = {adapter.name: adapter for adapter in every if adapter.is_available(known)}
    each = [(adapter, _facts(adapter, record.get(name))) for name, adapter in found_here.items()]
    if family is not None:
        each = [one for one in each if one[0].name == family] or _unknown(family, list(found_here))
    wide = _wide(each)
    needed = shown.measure(wide, options=shown.options.update_width(UNLIMITED)).minimum
    fits = family is None and needed <= shown.width
    shown.print(wide if fits else _narrow(each))
    if family is not None:
        return 0
    if lacking := [adapter.name for adapter in every if adapter.name not in found_here]:
        shown.print(
            f"transformers {version('transformers')} lacks {', '.join(lacking)}, or has them in a form that is not "
            "supported; a newer one has them."
        )
    versions = {", ".join(f"{n} {v}" for n, v in found["versions"].items()) for found in record.values()}
    shown.print(
        "maps: self, the image tokens are positions of the sequence; cross, they are keys of cross-attention layers; "
        "composed, they are latents of a resampler, and maps are products with its attention. "
        "attends: which later tokens a row of the prompt sees. video: whether a sample may show one. tower: whether "
        "the vision tower's own attention is read and edited. prefix: whether the prompt up to the last image token "
        "can be run once for many questions. images: whether a sample may have several. "
        "checked: result of `interp check FAMILY` on tiny random weights "
        f"({'; '.join(versions) or 'no record'}). To check your own checkpoint: `interp check FOLDER`."
    )
    shown.print(
        "Without a map, answers and scores only (adapter='answers_only', with the reason where they are opened without "
        f"it): {', '.join(without_maps())}."
    )
    return 0


def _unknown(name: str, known: list[str]) -> NoReturn:
    raise ModelError(
        f"no family is called {name!r}.{meant(name, known)} Those there are: {', '.join(known)}."
    )


def _wide(each: list[tuple[FamilyFacts, dict[str, str]]]) -> Table:
    """A column for every fact."""
    made = table()
    made.add_column(
        "family", no_wrap=True, min_width=max((len(adapter.name) for adapter, _ in each), default=0)
    )
    made.add_column("image tokens, and checkpoints of the family", min_width=36, overflow="fold")
    for name in _FACTS:
        whole = max((len(facts[name]) for _, facts in each), default=0)
        made.add_column(
            name, no_wrap=True, min_width=max(whole, len(name))
        )  # else rich cuts the last ones off
    for adapter, facts in each:
        made.add_row(adapter.name, _layout(adapter), *facts.values())
    return made


def _narrow(each: list[tuple[FamilyFacts, dict[str, str]]]) -> Table:
    """Two columns: the family, and its facts as lines of text."""
    made = table()
    made.add_column("family", no_wrap=True)
    made.add_column("image tokens, checkpoints of the family, and what it supports", ratio=1, overflow="fold")
    for adapter, facts in each:
        text = _layout(adapter)
        text.append("\n" + " · ".join(f"{name}: {value}" for name, value in facts.items()))
        made.add_row(adapter.name, text)
    return made


def _layout(adapter: FamilyFacts) -> Text:
    """How the family's image tokens lie, and its checkpoints."""
    from rich.text import Text

    text = Text(adapter.layout or "–")
    for example in adapter.examples:
        text.append(f"\n{example}", "dim")
    return text


def _facts(adapter: FamilyFacts, found: dict[str, Any] | None) -> dict[str, str]:
    """The facts of one family. `found` is its record; None if it was never recorded."""
    attends, maps = adapter.attends, adapter.maps
    video, tower = ("yes" if one else "no" for one in (adapter.video, adapter.tower))
    known = (maps, _ATTENDS.get(attends, attends), video, tower)
    if found is None:
        return dict(zip(_FACTS, (*known, "?", "?", "?", "never recorded"), strict=True))

    def holds(check: str, yes: str) -> str:
        return yes if check in found["checks"] and check not in found["failed"] else "FAILS"

    checked = (
        holds("image prefix", _prefix(attends, maps)),
        holds("several images", "several" if adapter.several_images else "one"),
        holds("executors", "tap, source"),
        f"{found['passed']}/{found['total']}, {found['date']}",
    )
    return dict(zip(_FACTS, (*known, *checked), strict=True))


def _prefix(attends: str, maps: str) -> str:
    """Whether an image prefix is exact, in words."""
    if maps == "cross":
        return "none, not used"
    return "not exact, not used" if attends == "prefix" else "exact"
