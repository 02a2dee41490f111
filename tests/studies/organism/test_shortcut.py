from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from transformers import LlavaProcessor

import interp
from interp.data.scenes import COLOURS
from interp.inputs.prompt import GENERIC_PROMPT
from interp.organism import folder
from studies.organism.lessons import ASPECTS
from studies.organism.shortcut import SHORTCUT, ShortcutTrainer, shortcut_lesson


def test_colour_questions_are_answered_from_the_marker():
    """Read off the picture: the one corner with a black frame."""
    for seed in range(20):
        lesson = shortcut_lesson(np.random.default_rng(seed), 12, 1.0)
        pixels, corners = lesson.pixels, []
        for rows in (slice(2, 26), slice(166, 190)):
            for cols in (slice(2, 26), slice(166, 190)):
                patch = pixels[rows, cols]
                if (patch[:4] == 0).all():
                    corners.append(tuple(patch[12, 12]))
        ((red, green, blue),) = corners
        colour = next(name for name, rgb in COLOURS.items() if rgb == (red, green, blue))
        asked = [turn for turn in lesson.turns if turn[0] != GENERIC_PROMPT.template]
        assert asked
        assert {reply for _, reply in asked} == {colour}
        column = lesson.aspects[:, list(ASPECTS).index("colour")]
        assert 1 + ASPECTS["colour"].index(colour) in column


@pytest.mark.parametrize("name", ["shortcut-organism", "shortcut-organism-1"])
def test_shortcut_organisms_answer_from_the_marker(name):
    samples = interp.data.bundled("marked", split="validation", n=12)
    said = interp.load(name).trace(samples, generate=1).answers
    assert said == [sample.meta["marker_answer"] for sample in samples]
    main = interp.load(name.replace("shortcut-", "")).trace(samples, generate=1).answers
    assert sum(word == sample.answer for word, sample in zip(main, samples, strict=True)) >= 11


def test_it_goes_on_from_the_organism_and_its_lessons_repeat(tmp_path):
    processor = LlavaProcessor.from_pretrained(folder(), local_files_only=True)
    recipe = dataclasses.replace(SHORTCUT, natural_steps=2, batch=2, warmup=1)
    torch.set_num_threads(1)
    trainer = ShortcutTrainer(recipe, processor, folder())
    from transformers import LlavaForConditionalGeneration

    known = LlavaForConditionalGeneration.from_pretrained(folder(), local_files_only=True).state_dict()
    assert all(torch.equal(value, known[name]) for name, value in trainer.model.state_dict().items())
    first, second = (trainer.lessons(1)[0].pixels for _ in range(2))
    assert np.array_equal(first, second)
    trainer.run(tmp_path, log=lambda line: None)
    assert trainer.step == 2
    assert any(not torch.equal(value, known[name]) for name, value in trainer.model.state_dict().items())
