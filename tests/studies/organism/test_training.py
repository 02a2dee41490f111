"""Training resumes into the same weights, and a checkpoint of another recipe is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from interp.errors import ModelError
from interp.organism.parts import build_processor
from studies.organism.lessons import MedicalPicture
from studies.organism.training import Recipe, Trainer

pytestmark = pytest.mark.slow

TINY = Recipe(
    sight_steps=2,
    natural_steps=2,
    mixed_steps=3,
    sight_batch=2,
    batch=4,
    turns=2,
    warmup=2,
    medical_share=0.5,
)
WORDS = ["left", "right", "kidney", "liver"]


def trainer(recipe: Recipe = TINY) -> Trainer:
    made = Trainer(recipe, build_processor(WORDS))
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    made.teach_medical(
        [MedicalPicture(pixels, {"liver": (0.2, 0.2, 0.5, 0.6), "left kidney": (0.6, 0.5, 0.8, 0.7)})]
    )
    return made


def silent(_: str) -> None:
    """Takes what training would print."""


def test_stopped_and_resumed_training_gives_the_same_weights(tmp_path: Path) -> None:
    straight = trainer()
    straight.run(tmp_path / "straight", log=silent)
    for stop in (1, 3, 5, None):
        stopped = trainer()
        stopped.run(tmp_path / "stopped", until=stop, log=silent)
    assert stopped.step == TINY.steps
    for (name, a), b in zip(
        straight.model.state_dict().items(), stopped.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_every_kind_of_step_moves_what_it_should() -> None:
    made = trainer()
    before = {n: p.clone() for n, p in made.model.named_parameters()}
    figures = made.advance()
    moved = {n for n, p in made.model.named_parameters() if not torch.equal(p, before[n])}
    assert any("vision_tower" in n for n in moved)
    assert set(figures) == {"auxiliary"}
    made.step = TINY.sight_steps
    figures = made.advance()
    assert set(figures) == {"auxiliary", "answer", "colour", "size", "side", "visible"}
    assert any(
        "language_model.layers.5" in n and not torch.equal(p, before[n])
        for n, p in made.model.named_parameters()
    )


def test_only_mixed_steps_draw_medical_lessons() -> None:
    made = trainer()
    medical = [
        sum((lesson.aspects == -1).all() for lesson in made.lessons(step)) for step in range(TINY.steps)
    ]
    assert medical == [0, 0, 0, 0, 2, 2, 2]


def test_rate_warms_up_holds_and_fades() -> None:
    recipe = Recipe()
    scales = [recipe.scale(step) for step in range(recipe.steps)]
    assert scales[0] == pytest.approx(1 / recipe.warmup)
    assert scales[recipe.warmup : int(0.75 * recipe.steps)] == [1.0] * (
        int(0.75 * recipe.steps) - recipe.warmup
    )
    assert 0 < scales[-1] < 0.01
    assert all(
        a >= b for a, b in zip(scales[-recipe.steps // 4 :], scales[-recipe.steps // 4 + 1 :], strict=False)
    )


def test_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    trainer().run(tmp_path, until=1, log=silent)
    with pytest.raises(
        ModelError, match=r"was made with .* Remove the checkpoint or train in another folder"
    ):
        trainer(dataclasses.replace(TINY, seed=3)).run(tmp_path, log=silent)


def test_too_many_labels_are_refused() -> None:
    made = Trainer(TINY, build_processor(WORDS))
    labels = {f"liver {i}": (0.0, 0.0, 0.5, 0.5) for i in range(200)}
    with pytest.raises(ModelError, match="200 medical labels; at most 122 fit"):
        made.teach_medical([MedicalPicture(np.zeros((4, 4, 3), np.uint8), labels)])
