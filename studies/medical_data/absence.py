"""Which structures are certainly not in a slice: by body region, or well beyond where the volume shows them."""

from __future__ import annotations

from collections.abc import Iterable

from studies.medical_data.readers import GAP_MM, Item, Source

__all__ = ["REGIONS", "SHOWN", "certainly_absent"]

PELVIS = {"bladder", "prostate", "sacrum"} | {
    f"{side} {part}"
    for side in ("left", "right")
    for part in ("femur", "gluteus maximus", "gluteus medius", "hip bone")
}
HEAD, CELLS = {"left hemisphere", "right hemisphere"}, {"largest nucleus"}
UNSURE = {"vertebra", "left back muscle", "right back muscle"}
"""Also in a neck, which a scan of the head may show."""
REGIONS = {"pelvis": PELVIS, "head": HEAD, "cells": CELLS}
"""Everything else the slices are asked about belongs to the trunk."""
SHOWN = {
    "ct-torso": {"trunk", "pelvis"},
    "ct-chest": {"trunk"},
    "ct-abdomen": {"trunk"},
    "mr-abdomen": {"trunk"},
    "mr-head": {"head"},
    "mr-template": {"head"},
    "nuclei-2d": {"cells"},
    "nuclei-3d": {"cells"},
}
"""The regions a source shows. The two abdomens were segmented for pelvic structures too, and have none."""


def region(label: str) -> str:
    """Returns the body region of a label.

    >>> region("bladder"), region("liver"), region("largest nucleus")
    ('pelvis', 'trunk', 'cells')
    """
    return next((name for name, labels in REGIONS.items() if label in labels), "trunk")


def certainly_absent(
    source: Source, item: Item, volume: Iterable[Item], asked: set[str]
) -> tuple[set[str], set[str]]:
    """Returns the labels of `asked` that are certainly not in a slice: (of its own volume, of other regions).

    Of its own volume, where a model marked every structure: no voxel within 12 mm of the slice, so a border the
    model drew too early does not count. Of other regions: labels of no region that the source shows, and never one
    that the volume holds.
    """
    volume = list(volume)
    held = set().union(*(other.labels for other in volume))
    elsewhere = {x for x in asked - UNSURE - held if region(x) not in SHOWN[source.key]}
    if source.mask_origin != "model" or len({tuple(other.slice.names.values()) for other in volume}) > 1:
        return set(), elsewhere  # not one model's labels throughout
    near = set().union(*(other.labels for other in volume if abs(other.at_mm - item.at_mm) <= GAP_MM))
    return (held & asked) - near, elsewhere
