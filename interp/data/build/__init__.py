"""The rules from masks to boxes to closed questions, as pure functions. `interp.data_build` applies them to data.

Every bundled medical sample was made by these rules (`studies/medical_data`).
"""

from interp.data.build.slices import (
    AREA,
    LUNG,
    MR_PERCENTILES,
    SHARE,
    SOFT_TISSUE,
    BoxTuple,
    Finding,
    Slice,
    box_of,
    cut,
    find,
    foreground,
    large_pieces,
    largest_component,
    mirror,
    piece_boxes,
    scale_box,
    square_pixels,
    square_size,
    window,
)
from interp.data.build.sources import REGIONS, RELATED, SOURCES, RelatedWork, SourceSet, body_region, modality
from interp.data.build.templates import (
    ATTRIBUTE,
    LARGE,
    LOCALIZATION,
    MIDLINE,
    SMALL,
    Question,
    Structure,
    absent,
    diverse,
    is_abnormal,
    lottery,
    outline,
    questions,
    side,
    size,
)

__all__ = [
    "AREA", "ATTRIBUTE", "LARGE", "LOCALIZATION", "LUNG", "MIDLINE", "MR_PERCENTILES", "REGIONS", "RELATED", "SHARE",
    "SMALL", "SOFT_TISSUE", "SOURCES", "BoxTuple", "Finding", "Question", "RelatedWork", "Slice", "SourceSet",
    "Structure", "absent", "body_region", "box_of", "cut", "diverse", "find", "foreground", "is_abnormal",
    "large_pieces", "largest_component", "lottery", "mirror", "modality", "outline", "piece_boxes", "questions",
    "scale_box", "side", "size", "square_pixels", "square_size", "window",
]  # fmt: skip
