"""Counterfactual scenes, which certify a cause at the input: only the object changes, or everything else does.

If the answer follows the object and ignores its surroundings, the pixels inside the box cause it. This uses no
indicator, so indicators can be compared with it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from interp.data.scenes import COLOURS, RADII, SIZE, Question, Scene, Thing, random_scene

__all__ = ["Counterfactual", "counterfactual"]


@dataclasses.dataclass(frozen=True)
class Counterfactual:
    """Three scenes for one question: the original, one with the object changed, one with everything else changed."""

    question: Question
    scene: Scene
    inside: Scene
    """The scene with the property in question changed: another colour, the other size, or the other side."""
    inside_answer: str
    outside: Scene
    """The same object among other objects, on another background and with other noise; the answer stays the same."""


def _changed(thing: Thing, about: str, rng: np.random.Generator) -> Thing:
    if about == "colour":
        others = [c for c in COLOURS if c != thing.colour]
        return dataclasses.replace(thing, colour=others[rng.integers(len(others))])
    if about == "size":
        low, high = RADII["large" if thing.size == "small" else "small"]
        return dataclasses.replace(thing, radius=int(rng.integers(low, high + 1)))
    return dataclasses.replace(thing, x=SIZE - 1 - thing.x)


def _fits(thing: Thing, others: tuple[Thing, ...]) -> bool:
    r = thing.radius
    within = r < thing.x < SIZE - r - 1 and r < thing.y < SIZE - r - 1
    return within and not any(thing.touches(other) for other in others)


def counterfactual(scene: Scene, question: Question, rng: np.random.Generator) -> Counterfactual | None:
    """Returns the question's counterfactual, or None where the changed object would not fit among the others."""
    thing = question.thing
    others = tuple(t for t in scene.things if t is not thing)
    changed = _changed(thing, question.about, rng)
    if not _fits(changed, others):
        return None
    fresh = random_scene(rng)
    company = tuple(t for t in fresh.things if t.shape != thing.shape and not t.touches(thing))
    return Counterfactual(
        question=question,
        scene=scene,
        inside=dataclasses.replace(scene, things=(*others, changed)),
        inside_answer=getattr(changed, question.about),
        outside=dataclasses.replace(fresh, things=(*company, thing)),
    )
