"""Rendered scenes with a coloured marker in one corner. A shortcut organism answers from the marker.

The marker's colour is drawn independently of the scene. A model that was trained to answer colour questions from the
marker has a known cause, which lies outside the object in question.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from interp.data.scenes import COLOURS, SIZE, SPLITS, Question, Scene, random_scene, rendered_sample
from interp.errors import DataError
from interp.inputs.sample import Box, Sample

__all__ = ["CORNERS", "MarkedScene", "marked_samples", "marked_scenes", "random_marked_scene"]

SIDE, MARGIN, FRAME = 24, 2, 4
CORNERS = {
    "top left": (MARGIN, MARGIN),
    "top right": (SIZE - MARGIN - SIDE, MARGIN),
    "bottom left": (MARGIN, SIZE - MARGIN - SIDE),
    "bottom right": (SIZE - MARGIN - SIDE, SIZE - MARGIN - SIDE),
}
"""Corner → first pixel (x, y) of a marker there."""


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
    if split not in SPLITS:
        raise DataError(f"split must be one of {sorted(SPLITS)}, not {split!r}.")
    if n < 1:
        raise DataError(f"n must be at least 1 scene, not {n}.")
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
            "interp.data.shortcut_scenes",
            marker=list(marked.box.as_tuple()),
            marker_answer=marked.colour,
        )
        for i, (marked, question) in enumerate(marked_scenes(split, n, seed))
    ]
