"""Lessons for training: an image, several question turns, and the content of each image patch.

Turns share the image but do not see each other: every turn attends to the image and to itself, at the positions
that it would have alone. So training and later use have the same form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image

from interp.data.scenes import COLOURS, SHAPES, SIZE, TEMPLATES, Scene, random_scene
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT
from interp.inputs.sample import Sample
from interp.organism.parts import GRID, PIXELS

__all__ = [
    "ASPECTS",
    "Lesson",
    "MedicalPicture",
    "box_questions",
    "inside",
    "jitter",
    "medical_lesson",
    "medical_pictures",
    "mirrored_name",
    "natural_lesson",
    "said",
    "scene_patches",
]

ASPECTS = {"colour": tuple(COLOURS), "size": ("small", "large"), "side": ("left", "right")}
"""Aspects that an image token of a rendered object must encode: aspect → its values, from 1; 0 is background."""

BACKGROUND = 76  # the processor pads with its mean, 0.3 · 255
SIDE_MARGIN, SMALL_AREA, LARGE_AREA = 0.08, 0.04, 0.08


@dataclass(frozen=True)
class Lesson:
    """An image, its (question, answer) turns, and what each of the 12×12 patches shows."""

    pixels: UInt8[np.ndarray, "row col 3"]
    turns: list[tuple[str, str]]
    """(text the user says, reply)."""
    names: Bool[np.ndarray, "token name"]
    aspects: Int[np.ndarray, "token aspect"]
    """Values of `ASPECTS` in order; −1 where they are unknown (medical images)."""


@dataclass
class MedicalPicture:
    """One training slice, padded to a square, with its named boxes in relative coordinates."""

    pixels: UInt8[np.ndarray, "row col 3"]
    boxes: dict[str, tuple[float, float, float, float]] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    modality: str = ""


def inside(box: tuple[float, float, float, float], side: float = 1.0) -> Bool[np.ndarray, " token"]:
    """Returns which patches have their centre in a box of an image whose sides are `side` long."""
    centres = (np.arange(GRID) + 0.5) / GRID * side
    x0, y0, x1, y1 = box
    cols, rows = (centres >= x0) & (centres < x1), (centres >= y0) & (centres < y1)
    return (rows[:, None] & cols[None, :]).reshape(-1)


def said(turns: list[tuple[str, str]], rng: np.random.Generator, bare_share: float) -> list[tuple[str, str]]:
    """Returns the turns with the paper's instruction or with the bare question."""
    instructed = rng.random(len(turns)) >= bare_share
    paper = PAPER_PROMPT.template
    return [
        (paper.format(question=text) if told and text != GENERIC_PROMPT.template else text, reply)
        for told, (text, reply) in zip(instructed, turns, strict=True)
    ]


def natural_lesson(rng: np.random.Generator, n_turns: int, bare_share: float, n_names: int) -> Lesson:
    """Returns a rendered scene with up to `n_turns` different turns about its objects, or the generic prompt."""
    scene = random_scene(rng)
    present = {t.shape for t in scene.things}
    turns = [(q.text, q.answer) for q in scene.questions()]
    shape = SHAPES[rng.integers(len(SHAPES))]
    turns.append((TEMPLATES["visible"].format(shape), "yes" if shape in present else "no"))
    turns = [turns[i] for i in rng.permutation(len(turns))]
    if rng.random() < 0.3:
        turns.insert(0, (GENERIC_PROMPT.template, "scene"))
    names, aspects = scene_patches(scene, n_names)
    return Lesson(scene.render(), said(turns[:n_turns], rng, bare_share), names, aspects)


def scene_patches(
    scene: Scene, n_names: int
) -> tuple[Bool[np.ndarray, "token name"], Int[np.ndarray, "token aspect"]]:
    """Returns the name and the aspects of each patch of a scene; 0 is background."""
    names = np.zeros((GRID * GRID, n_names), dtype=bool)
    aspects = np.zeros((GRID * GRID, len(ASPECTS)), dtype=np.int64)
    for thing in scene.things:
        where = inside(thing.box.as_tuple(), SIZE)
        names[where, SHAPES.index(thing.shape)] = True
        aspects[where] = [1 + values.index(getattr(thing, a)) for a, values in ASPECTS.items()]
    return names, aspects


def medical_pictures(samples: Sequence[Sample]) -> list[MedicalPicture]:
    """Returns the training slices behind `samples`, one each, with every label's box or its recorded absence."""
    pictures: dict[bytes, MedicalPicture] = {}
    for sample in samples:
        image = sample.load()
        key = image.tobytes()
        side = max(image.size)
        left, top = (side - image.width) // 2, (side - image.height) // 2
        if key not in pictures:
            square = Image.new("RGB", (side, side), (BACKGROUND,) * 3)
            square.paste(image, (left, top))
            pictures[key] = MedicalPicture(np.asarray(square), modality=str(sample.meta.get("modality", "")))
        label = str(sample.meta["label"])
        if not sample.boxes:
            pictures[key].absent.add(label)
            continue
        box = sample.boxes[0]
        x0, y0, x1, y1 = (box.x0 + left, box.y0 + top, box.x1 + left, box.y1 + top)
        pictures[key].boxes[label] = (x0 / side, y0 / side, x1 / side, y1 / side)
    return list(pictures.values())


def mirrored_name(label: str) -> str:
    """Returns the label for the mirrored picture, with left and right swapped."""
    swap = {"left": "right", "right": "left"}
    return " ".join(swap.get(word, word) for word in label.split())


def jitter(
    picture: MedicalPicture, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, tuple[float, float, float, float]], bool]:
    """Returns the picture at 96 pixels, zoomed, shifted, mirrored and re-lit at random, with its boxes."""
    side = picture.pixels.shape[0]
    zoom = rng.uniform(0.8, 1.15)
    u, v = rng.uniform(-0.08, 0.08, 2) + (1 - zoom) / 2
    mirrored = bool(rng.random() < 0.5)
    scale = side * zoom / PIXELS
    image = Image.fromarray(picture.pixels).transform(
        (PIXELS, PIXELS), Image.Transform.AFFINE, (scale, 0, u * side, 0, scale, v * side),
        resample=Image.Resampling.BILINEAR, fillcolor=(BACKGROUND,) * 3,
    )  # fmt: skip
    pixels = np.asarray(image, dtype=np.float32)
    pixels = np.clip(pixels * rng.uniform(0.8, 1.2) + rng.uniform(-15, 15), 0, 255).astype(np.uint8)
    boxes = {}
    for label, (x0, y0, x1, y1) in picture.boxes.items():
        x0, x1, y0, y1 = (x0 - u) / zoom, (x1 - u) / zoom, (y0 - v) / zoom, (y1 - v) / zoom
        if mirrored:
            x0, x1 = 1 - x1, 1 - x0
        if min(x0, y0) > -0.02 and max(x1, y1) < 1.02:
            boxes[mirrored_name(label) if mirrored else label] = (x0, y0, x1, y1)
    return (pixels[:, ::-1] if mirrored else pixels), boxes, mirrored


def box_questions(label: str, box: tuple[float, float, float, float]) -> list[tuple[str, str]]:
    """Returns the (question, answer) pairs that a box answers, presence first."""
    x0, y0, x1, y1 = box
    turns = [(TEMPLATES["visible"].format(label), "yes")]
    if abs((x0 + x1) / 2 - 0.5) > SIDE_MARGIN:
        turns.append((TEMPLATES["side"].format(label), "left" if x0 + x1 < 1 else "right"))
    area = (x1 - x0) * (y1 - y0)
    if area >= LARGE_AREA or area <= SMALL_AREA:
        turns.append((TEMPLATES["size"].format(label), "large" if area >= LARGE_AREA else "small"))
    return turns


def medical_lesson(
    picture: MedicalPicture, rng: np.random.Generator, n_turns: int, bare_share: float, names: Sequence[str]
) -> Lesson:
    """Returns one jittered slice with `n_turns` turns about its labels; the auxiliary task is naming patches."""
    pixels, boxes, mirrored = jitter(picture, rng)
    turns: list[tuple[str, str]] = []
    labels, absent = sorted(boxes), sorted(mirrored_name(a) if mirrored else a for a in picture.absent)
    for _ in range(n_turns):
        draw = rng.random()
        if draw < 0.03 or not labels:
            turns.append((GENERIC_PROMPT.template, "scan"))
        elif draw < 0.2 and absent:
            turns.append((TEMPLATES["visible"].format(absent[rng.integers(len(absent))]), "no"))
        else:
            label = labels[rng.integers(len(labels))]
            choices = box_questions(label, boxes[label])
            turns.append(choices[rng.integers(len(choices))])
    shown = np.zeros((GRID * GRID, len(names)), dtype=bool)
    for label, box in boxes.items():
        if label in names:
            shown[inside(box), names.index(label)] = True
    return Lesson(
        pixels, said(turns, rng, bare_share), shown, np.full((GRID * GRID, len(ASPECTS)), -1, dtype=np.int64)
    )
