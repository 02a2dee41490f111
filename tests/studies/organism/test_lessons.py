"""What the organism is taught must be true: patches, turns, the mask between turns, and mirrored medical slices."""

import numpy as np
import pytest
import torch

from interp.data import bundled
from interp.data.scenes import SHAPES, random_scene
from interp.inputs.sample import Box, Sample
from interp.organism.parts import GRID, IMAGE_TOKEN_ID, build_model, build_processor
from studies.organism.batches import Packer
from studies.organism.lessons import (
    ASPECTS,
    Lesson,
    MedicalPicture,
    medical_lesson,
    medical_pictures,
    natural_lesson,
)


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer(build_processor())


def blank(turns: list[tuple[str, str]]) -> Lesson:
    tokens = GRID * GRID
    return Lesson(
        np.full((96, 96, 3), 40, np.uint8),
        turns,
        np.zeros((tokens, 8), bool),
        np.zeros((tokens, 3), np.int64),
    )


def test_patch_labels_say_what_the_pixels_of_the_patch_show() -> None:
    lesson = natural_lesson(np.random.default_rng(4), 4, 0.5, 16)
    scene = random_scene(np.random.default_rng(4))
    for token in np.flatnonzero(lesson.names.any(1)):
        row, col = divmod(int(token), GRID)
        x, y = (col + 0.5) * 16, (row + 0.5) * 16
        thing = scene.find(SHAPES[int(lesson.names[token].argmax())])
        assert abs(x - thing.x) <= thing.radius + 1
        assert abs(y - thing.y) <= thing.radius + 1
        told = [values[lesson.aspects[token, k] - 1] for k, values in enumerate(ASPECTS.values())]
        assert told == [thing.colour, thing.size, thing.side]
    assert (lesson.aspects[~lesson.names.any(1)] == 0).all()


def test_turns_differ_and_tell_the_truth() -> None:
    for seed in range(30):
        lesson = natural_lesson(np.random.default_rng(seed), 12, 1.0, 16)
        scene = random_scene(np.random.default_rng(seed))
        assert len(set(lesson.turns)) == len(lesson.turns)
        truth = {q.text: q.answer for q in scene.questions()}
        present = {t.shape for t in scene.things}
        for text, reply in lesson.turns:
            if text.startswith("Is the"):
                assert (reply == "yes") == (text.split()[2] in present)
            elif text.startswith("Wh"):
                assert truth[text] == reply


def test_a_packed_turn_gives_the_logits_it_gives_alone(packer: Packer) -> None:
    torch.manual_seed(0)
    model = build_model().eval()
    turns = [
        ("What color is the ring?", "red"),
        ("Is the circle visible?", "no"),
        ("What size is the ring? Answer the question using a single word or phrase.", "small"),
    ]
    together = packer([blank(turns)])
    with torch.no_grad():
        image = torch.stack(list(model.model.get_image_features(together.pixels).pooler_output))
        words = model.get_input_embeddings()(together.ids)
        words = words.masked_scatter((together.ids == IMAGE_TOKEN_ID)[..., None], image)
        states = model.model.language_model(
            inputs_embeds=words, attention_mask=together.mask, position_ids=together.positions
        ).last_hidden_state
        packed = model.lm_head(states[together.labels != -100]).reshape(3, 2, -1)[:, 0]
        for i, (text, _) in enumerate(turns):
            chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
            prompt = packer.processor.apply_chat_template(chat, add_generation_prompt=True)
            alone = packer.processor(images=[blank([]).pixels], text=[prompt], return_tensors="pt")
            assert torch.allclose(model(**alone).logits[0, -1], packed[i], atol=1e-5)


def test_labels_are_the_replies_each_followed_by_the_end(packer: Packer) -> None:
    batch = packer([blank([("What color is the ring?", "red")]), blank([("a", "yes"), ("a question", "no")])])
    told = [packer.processor.tokenizer.decode(row[row != -100]) for row in batch.labels]
    assert told == ["red </s>", "yes </s> no </s>"]
    where = (batch.labels[0] == packer.processor.tokenizer.convert_tokens_to_ids("red")).nonzero().item()
    assert packer.processor.tokenizer.decode(batch.ids[0, where : where + 2]) == ": red"


def picture(box: tuple[float, float, float, float], label: str) -> MedicalPicture:
    """A black square with a white box where the label is."""
    pixels = np.zeros((300, 300, 3), np.uint8)
    x0, y0, x1, y1 = (round(v * 300) for v in box)
    pixels[y0:y1, x0:x1] = 250
    return MedicalPicture(pixels, {label: box})


@pytest.mark.parametrize("seed", range(12))
def test_medical_jitter_moves_boxes_with_the_pixels(seed: int) -> None:
    labels = ["left kidney", "right kidney"]
    lesson = medical_lesson(
        picture((0.2, 0.3, 0.45, 0.6), "left kidney"), np.random.default_rng(seed), 6, 1.0, labels
    )
    bright = lesson.pixels.reshape(GRID, 8, GRID, 8, 3).mean((1, 3, 4)).reshape(-1)
    shown = lesson.names.any(1)
    assert shown.any()
    assert bright[shown].min() > bright[~shown].mean() + 60
    name = labels[int(lesson.names.any(0).argmax())]
    cols = np.flatnonzero(shown) % GRID
    on_left = cols.mean() < (GRID - 1) / 2
    assert on_left == (name == "left kidney"), "mirrored pixels must carry the mirrored name"
    for text, reply in lesson.turns:
        if text == f"Which side is the {name} on?":
            assert reply == ("left" if on_left else "right")
        assert reply in {"left", "right", "yes", "small", "large", "scan"}


def test_medical_pictures_pad_to_the_middle() -> None:
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[10:20, 30:50] = 200
    box = Box(30, 10, 50, 20)
    rows = [
        Sample(
            image=pixels, question="Is the liver visible?", boxes=[box], answer="yes", meta={"label": "liver"}
        ),
        Sample(image=pixels, question="Is the colon visible?", answer="no", meta={"label": "colon"}),
    ]
    (made,) = medical_pictures(rows)
    assert made.pixels.shape == (100, 100, 3)
    x0, y0, x1, y1 = (round(v * 100) for v in made.boxes["liver"])
    assert (made.pixels[y0:y1, x0:x1] == 200).all()
    assert made.pixels[:20].max() == 76
    assert made.absent == {"colon"}


@pytest.mark.slow
def test_training_slices_are_never_test_slices() -> None:
    def pixels(split: str) -> set[bytes]:
        return {s.load().tobytes() for s in bundled("medical", split=split)}

    assert not pixels("train") & (pixels("test") | pixels("validation"))
