"""Rendered natural scenes with exact objects, boxes and answers; some have a marker that serves as a shortcut.

A scene is a value: a background, a noise seed and up to four objects of different shapes. It can be changed
(`Scene.recolour`, `Scene.resize`) and rendered again, which is how a model organism's cause is certified at the
input: only the object in question changes.

The marker's colour is drawn independently of the scene. A model that was trained to answer colour questions from the
marker has a known cause, which lies outside the object in question.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from interp.errors import DataError
from interp.inputs.images import LazyImage
from interp.inputs.sample import Box, Sample

__all__ = [
    "COLOURS",
    "CORNERS",
    "KINDS",
    "SHAPES",
    "MarkedScene",
    "Question",
    "Scene",
    "Thing",
    "marked_samples",
    "marked_scenes",
    "natural_sample",
    "natural_samples",
    "natural_scenes",
    "random_marked_scene",
    "random_scene",
    "rendered_sample",
]


SIZE = 192
SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 200, 60),
    "blue": (50, 70, 230),
    "yellow": (230, 220, 50),
    "white": (240, 240, 240),
    "purple": (170, 60, 200),
}
RADII = {"small": (13, 18), "large": (24, 29)}
"""Half the side of an object's box, in pixels, both ends included; the gap keeps `size` unambiguous."""

KINDS = {"colour": "attribute", "size": "attribute", "side": "localization"}
"""Property of an object → the paper's kind of question."""

SPLITS = {"train": 0, "validation": 1, "test": 2}
SIDE_MARGIN = 12
TEMPLATES = {
    "colour": "What color is the {}?",
    "size": "What size is the {}?",
    "side": "Which side is the {} on?",
    "visible": "Is the {} visible?",
}


SIDE, MARGIN, FRAME = 24, 2, 4
CORNERS = {
    "top left": (MARGIN, MARGIN),
    "top right": (SIZE - MARGIN - SIDE, MARGIN),
    "bottom left": (MARGIN, SIZE - MARGIN - SIDE),
    "bottom right": (SIZE - MARGIN - SIDE, SIZE - MARGIN - SIDE),
}
"""Corner → first pixel (x, y) of a marker there."""


@dataclass(frozen=True)
class Thing:
    """One object: its centre (x, y) and half-extent `radius` in pixels."""

    shape: str
    colour: str
    x: int
    y: int
    radius: int

    @property
    def size(self) -> str:
        """`"small"` or `"large"`."""
        return "small" if self.radius <= RADII["small"][1] else "large"

    @property
    def side(self) -> str:
        """`"left"` or `"right"` half of the image, by the object's centre."""
        return "left" if self.x < SIZE / 2 else "right"

    @property
    def box(self) -> Box:
        """The smallest half-open xyxy box that holds every pixel of the object."""
        r = self.radius
        return Box(self.x - r, self.y - r, self.x + r + 1, self.y + r + 1)

    def touches(self, other: Thing) -> bool:
        """Whether the two boxes come within two pixels of each other."""
        reach = self.radius + other.radius + 2
        return abs(self.x - other.x) <= reach and abs(self.y - other.y) <= reach


@dataclass(frozen=True)
class Question:
    """A question about one object of a scene, with its answer."""

    text: str
    about: str
    thing: Thing
    answer: str


@dataclass(frozen=True)
class Scene:
    """A background (two RGB ends of a vertical gradient), a seed for pixel noise, and objects of different shapes."""

    top: tuple[int, int, int]
    bottom: tuple[int, int, int]
    noise_seed: int
    things: tuple[Thing, ...]

    def render(self) -> UInt8[np.ndarray, "row col 3"]:
        """Returns the scene's pixels, the same for the same scene."""
        ramp = np.linspace(0, 1, SIZE)[:, None]
        rows = (np.asarray(self.top) * (1 - ramp) + np.asarray(self.bottom) * ramp).astype(np.uint8)
        image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows[:, None], (SIZE, SIZE, 3))))
        pen = ImageDraw.Draw(image)
        for thing in self.things:
            _draw(pen, thing)
        noise = np.random.default_rng(self.noise_seed).integers(-12, 13, (SIZE, SIZE, 1), dtype=np.int16)
        return np.clip(np.asarray(image, dtype=np.int16) + noise, 0, 255).astype(np.uint8)

    def find(self, shape: str) -> Thing:
        """Returns the object of that shape.

        Raises:
            DataError: The scene has no such object.
        """
        for thing in self.things:
            if thing.shape == shape:
                return thing
        raise DataError(
            f"this scene has no {shape}; it has {[t.shape for t in self.things]}. Ask for one of those."
        )

    def replace(self, shape: str, **changes: object) -> Scene:
        """Returns the scene with one object changed and everything else, noise included, unchanged."""
        old = self.find(shape)
        new = dataclasses.replace(old, **changes)  # type: ignore[arg-type]
        return dataclasses.replace(self, things=tuple(new if t is old else t for t in self.things))

    def questions(self) -> Iterator[Question]:
        """Yields every question about every object: its colour, its size and, away from the midline, its side."""
        for thing in self.things:
            for about in KINDS:
                if about != "side" or abs(thing.x - SIZE / 2) >= SIDE_MARGIN:
                    yield Question(TEMPLATES[about].format(thing.shape), about, thing, getattr(thing, about))


def _draw(pen: ImageDraw.ImageDraw, thing: Thing) -> None:
    x, y, r, fill = thing.x, thing.y, thing.radius, COLOURS[thing.colour]
    corners = (x - r, y - r, x + r, y + r)
    if thing.shape == "circle":
        pen.ellipse(corners, fill=fill)
    elif thing.shape == "ring":
        pen.ellipse(corners, outline=fill, width=max(3, round(r * 0.4)))
    elif thing.shape == "square":
        pen.rectangle(corners, fill=fill)
    elif thing.shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=fill)
    elif thing.shape == "diamond":
        pen.polygon([(x, y - r), (x - r, y), (x, y + r), (x + r, y)], fill=fill)
    else:
        arm = round(r * 0.35)
        pen.rectangle((x - arm, y - r, x + arm, y + r), fill=fill)
        pen.rectangle((x - r, y - arm, x + r, y + arm), fill=fill)


def random_scene(rng: np.random.Generator) -> Scene:
    """Returns a scene of two to four objects of different shapes that do not touch."""
    shapes = rng.permutation(SHAPES)[: rng.integers(2, 5)]
    names = tuple(COLOURS)
    things: list[Thing] = []
    for shape in shapes:
        for _ in range(40):
            low, high = RADII["small" if rng.random() < 0.5 else "large"]
            r = int(rng.integers(low, high + 1))
            x, y = (int(v) for v in rng.integers(r + 1, SIZE - r - 1, 2))
            thing = Thing(str(shape), names[rng.integers(len(names))], x, y, r)
            if not any(thing.touches(other) for other in things):
                things.append(thing)
                break
    top, bottom = (tuple(int(v) for v in rng.integers(0, 60, 3)) for _ in range(2))
    return Scene(top, bottom, int(rng.integers(2**31)), tuple(things))  # type: ignore[arg-type]


def natural_scenes(split: str, n: int, seed: int = 0) -> list[tuple[Scene, Question]]:
    """Returns `n` scenes, each with one question; colour, size and side in turn. Splits never share a scene.

    Raises:
        DataError: An unknown split, or `n` below 1.
    """
    _check_drawn(split, n)
    return [_natural_scene(split, i, seed) for i in range(n)]


def _check_drawn(split: str, n: int) -> None:
    if split not in SPLITS:
        raise DataError(f"split must be one of {sorted(SPLITS)}, not {split!r}.")
    if n < 1:
        raise DataError(f"n must be at least 1 scene, not {n}.")


def _natural_scene(split: str, i: int, seed: int) -> tuple[Scene, Question]:
    """Scene number i of a split; it does not depend on the others."""
    rng = np.random.default_rng([seed, SPLITS[split], i])
    scene = random_scene(rng)
    about = tuple(KINDS)[i % len(KINDS)]
    choices = [q for q in scene.questions() if q.about == about]
    while not choices:
        scene = random_scene(rng)
        choices = [q for q in scene.questions() if q.about == about]
    return scene, choices[rng.integers(len(choices))]


def natural_samples(split: str = "test", n: int = 200, seed: int = 0) -> list[Sample]:
    """Returns `n` rendered scenes as samples, one question each, the box exact, the scene its own group."""
    pairs = natural_scenes(split, n, seed)
    return [_as_sample(pair, split, i, seed) for i, pair in enumerate(pairs)]


def natural_sample(split: str, i: int, seed: int = 0) -> Sample:
    """Returns sample number i of `natural_samples`, which does not depend on how many there are."""
    return _as_sample(_natural_scene(split, i, seed), split, i, seed)


def _as_sample(pair: tuple[Scene, Question], split: str, i: int, seed: int) -> Sample:
    scene, question = pair
    return rendered_sample(scene.render, question, f"scene-{seed}-{split}-{i:05d}", "interp.data.scenes")


def rendered_sample(
    render: Callable[[], np.ndarray], question: Question, name: str, source: str, **meta: object
) -> Sample:
    """Returns a scene as a sample of that id and group; the box is that of the object in question.

    The scene is rendered when the image is read and not kept: 10,000 of them would take a gigabyte.
    """
    return Sample(
        image=LazyImage(render, name, (SIZE, SIZE)),
        question=question.text,
        boxes=(question.thing.box,),
        answer=question.answer,
        group=name,
        id=name,
        meta={
            "kind": KINDS[question.about],
            "about": question.about,
            "label": question.thing.shape,
            **meta,
            "modality": "rendered",
            "source": source,
            "licence": "Apache-2.0",
            "mask_origin": "rendered",
        },
    )


@dataclass(frozen=True)
class MarkedScene:
    """A scene and a marker, a coloured square in a black frame, that no object of the scene touches."""

    scene: Scene
    corner: str
    colour: str

    @property
    def box(self) -> Box:
        """The marker's pixels, frame included."""
        x, y = CORNERS[self.corner]
        return Box(x, y, x + SIDE, y + SIDE)

    def render(self) -> UInt8[np.ndarray, "row col 3"]:
        """Returns the pixels, the same for the same scene and marker."""
        image = Image.fromarray(self.scene.render())
        x0, y0, x1, y1 = (int(v) for v in self.box.as_tuple())
        pen = ImageDraw.Draw(image)
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=COLOURS[self.colour], outline=(0, 0, 0), width=FRAME)
        return np.asarray(image)

    def questions(self) -> list[Question]:
        """The colour questions about the scene's objects, with the answers that are true of the objects."""
        return [question for question in self.scene.questions() if question.about == "colour"]

    def recoloured(self, rng: np.random.Generator) -> MarkedScene:
        """Returns the same scene with a marker of another colour."""
        return dataclasses.replace(self, colour=str(rng.choice([c for c in COLOURS if c != self.colour])))

    def elsewhere_changed(self, shape: str, rng: np.random.Generator) -> MarkedScene:
        """Returns the same marker in a new scene; the object of that shape stays in place with another colour."""
        thing = self.scene.find(shape)
        colour = str(rng.choice([c for c in COLOURS if c != thing.colour]))
        while True:
            fresh = random_marked_scene(rng, corner=self.corner)
            company = [t for t in fresh.scene.things if t.shape != shape and not t.touches(thing)]
            things = (*company, dataclasses.replace(thing, colour=colour))
            return dataclasses.replace(self, scene=dataclasses.replace(fresh.scene, things=things))


def random_marked_scene(rng: np.random.Generator, corner: str | None = None) -> MarkedScene:
    """Returns a scene of at least one object with a marker in a (random) corner that no object touches."""
    where = str(rng.choice(list(CORNERS))) if corner is None else corner
    marked = MarkedScene(random_scene(rng), where, str(rng.choice(list(COLOURS))))
    marker, gap = marked.box, 2
    clear = tuple(
        thing
        for thing in marked.scene.things
        if thing.box.x0 >= marker.x1 + gap
        or thing.box.x1 + gap <= marker.x0
        or thing.box.y0 >= marker.y1 + gap
        or thing.box.y1 + gap <= marker.y0
    )
    if not clear:
        return random_marked_scene(rng, corner)
    return dataclasses.replace(marked, scene=dataclasses.replace(marked.scene, things=clear))


def marked_scenes(split: str, n: int, seed: int = 0) -> list[tuple[MarkedScene, Question]]:
    """Returns `n` marked scenes, each with one colour question. Splits never share a scene.

    The marker's colour differs from that of the object in question, so that the two answers differ.

    Raises:
        DataError: An unknown split, or `n` below 1.
    """
    _check_drawn(split, n)
    pairs = []
    for i in range(n):
        rng = np.random.default_rng([seed, SPLITS[split], i, 1])
        marked = random_marked_scene(rng)
        questions = marked.questions()
        question = questions[rng.integers(len(questions))]
        while marked.colour == question.answer:
            marked = marked.recoloured(rng)
        pairs.append((marked, question))
    return pairs


def marked_samples(split: str = "test", n: int = 200, seed: int = 0) -> list[Sample]:
    """Returns `n` marked scenes as samples. The box is the object's; `meta["marker"]` is the marker's (xyxy px).

    `answer` is the object's colour, the correct answer; `meta["marker_answer"]` is the marker's colour.
    """
    return [
        rendered_sample(
            marked.render,
            question,
            f"marked-{seed}-{split}-{i:05d}",
            "interp.data.scenes",
            marker=list(marked.box.as_tuple()),
            marker_answer=marked.colour,
        )
        for i, (marked, question) in enumerate(marked_scenes(split, n, seed))
    ]
