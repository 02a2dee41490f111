"""The third stage: every view keeps its boxes true, and training goes on from given weights, stopped or not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from interp.data import bundled
from interp.organism import folder
from studies.organism.augment import cropped, fields, relit, shrunk, skulled, turned, viewed
from studies.organism.lessons import BACKGROUND, MedicalPicture, medical_pictures
from studies.organism.refine import REFINE, RefineTrainer, refine_lesson, widened

pytestmark = pytest.mark.slow

SIDE = 96
NUCLEUS = "largest nucleus"


def nucleus(box: tuple[int, int, int, int] = (20, 30, 44, 50)) -> MedicalPicture:
    """A bright rectangle on dark ground, its box known."""
    pixels = np.full((SIDE, SIDE, 3), 20, np.uint8)
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1] = 200
    return MedicalPicture(
        pixels, {NUCLEUS: (x0 / SIDE, y0 / SIDE, x1 / SIDE, y1 / SIDE)}, {"liver"}, "microscopy"
    )


def bright(picture: MedicalPicture) -> tuple[float, ...]:
    """The bright rectangle's box as the pixels have it, relative."""
    ys, xs = np.nonzero(picture.pixels[..., 0] > 110)
    side = len(picture.pixels)
    return xs.min() / side, ys.min() / side, (xs.max() + 1) / side, (ys.max() + 1) / side


@pytest.mark.parametrize("quarters", range(5))
def test_turned_boxes_stay_on_their_pixels(quarters: int) -> None:
    made = turned(nucleus(), quarters)
    assert np.allclose(made.boxes[NUCLEUS], bright(made))
    assert quarters % 4 == 0 or not np.array_equal(made.pixels, nucleus().pixels)


@pytest.mark.parametrize("change", [cropped, shrunk])
@pytest.mark.parametrize("seed", range(6))
def test_cut_and_shrunk_boxes_stay_on_their_pixels(change: object, seed: int) -> None:
    made = change(nucleus(), np.random.default_rng(seed))  # type: ignore[operator]
    box = made.boxes[NUCLEUS]
    assert min(box) >= 0
    assert max(box) <= 1
    assert np.allclose(box, bright(made), atol=2 / SIDE)


def test_cut_pictures_show_it_larger_and_shrunk_ones_smaller() -> None:
    def area(box: tuple[float, float, float, float]) -> float:
        return (box[2] - box[0]) * (box[3] - box[1])

    whole = area(nucleus().boxes[NUCLEUS])
    for seed in range(6):
        rng = np.random.default_rng(seed)
        assert area(cropped(nucleus(), rng).boxes[NUCLEUS]) >= whole
        assert area(shrunk(nucleus(), rng).boxes[NUCLEUS]) <= 0.46 * whole


def test_fields_hold_alike_nuclei_where_they_say_at_every_size() -> None:
    shares = []
    for seed in range(40):
        view = fields(nucleus(), np.random.default_rng(seed))
        assert view.field_of == NUCLEUS
        shown = view.picture.pixels[..., 0] > 110
        side = len(shown)
        for x0, y0, x1, y1 in view.picture.boxes.values():
            assert min(x0, y0) >= 0
            assert max(x1, y1) <= 1
            inner = shown[round(y0 * side) : round(y1 * side), round(x0 * side) : round(x1 * side)]
            assert inner.mean() > 0.9
            shares.append((x1 - x0) * (y1 - y0))
        if not view.picture.boxes:
            assert shown.mean() < 0.5
    assert 0.011 < min(shares) < 0.02
    assert max(shares) > 0.08
    assert len({round(share, 6) for share in shares}) > 20  # one size a field, another in each


def test_a_head_is_drawn_around_a_brain_and_the_brain_stays() -> None:
    pixels = np.full((SIDE, SIDE, 3), BACKGROUND, np.uint8)
    pixels[:, 10:86] = 0
    pixels[30:70, 30:66] = 150
    brain = MedicalPicture(pixels, {"left hemisphere": (0.5, 0.3, 0.7, 0.7)}, modality="MR")
    for seed in range(5):
        made = skulled(brain, np.random.default_rng(seed))
        kept = pixels > 0
        assert np.array_equal(made.pixels[kept], pixels[kept])
        assert made.boxes == brain.boxes
        assert made.pixels[50, 10:30].max() > 60  # scalp beside it
    empty = MedicalPicture(np.zeros((SIDE, SIDE, 3), np.uint8), modality="MR")
    assert skulled(empty, np.random.default_rng(0)) is empty


def test_names_a_modality_lacks_are_asked_of_its_pictures() -> None:
    blank = np.zeros((8, 8, 3), np.uint8)
    box = (0.1, 0.1, 0.5, 0.5)
    made = widened(
        [
            MedicalPicture(blank, {"left hemisphere": box}, {"liver", "right hemisphere"}, "MR"),
            MedicalPicture(blank, {"right hemisphere": box}, {"spleen"}, "MR"),
            MedicalPicture(blank, {"liver": box}, {"bladder"}, "CT"),
            MedicalPicture(blank, {"bladder": box}, {"heart"}, "CT"),
            MedicalPicture(blank, {NUCLEUS: box}, {"liver"}, "microscopy"),
            MedicalPicture(blank, {}, {NUCLEUS}, "microscopy"),
        ]
    )
    assert [picture.absent for picture in made] == [
        {"liver", "spleen", "right hemisphere"}, {"spleen", "liver"}, {"bladder"}, {"heart"}, {"liver"}, {NUCLEUS},
    ]  # fmt: skip


def test_other_contrasts_leave_black_and_the_padding() -> None:
    pixels = np.full((SIDE, SIDE, 3), BACKGROUND, np.uint8)
    pixels[20:80] = np.arange(96)[None, :, None] * 2
    organ = MedicalPicture(pixels, {"liver": (0.1, 0.3, 0.4, 0.6)}, modality="CT")
    looks = [relit(organ, np.random.default_rng(seed)) for seed in range(4)]
    for look in looks:
        assert (look.pixels[:20] == BACKGROUND).all()
        assert (look.pixels[80:] == BACKGROUND).all()
        assert (look.pixels[20:80, 0] == 0).all()
        assert look.boxes == organ.boxes
    falls = [np.diff(look.pixels[50, :, 0].astype(int)).min() < 0 for look in looks]
    assert any(falls)  # not only brighter or darker: tissues change their order
    assert viewed(organ, np.random.default_rng(1)).field_of is None


def truth(turn: tuple[str, str], boxes: list[tuple[float, float, float, float]]) -> bool:
    """Whether an answer about a nucleus is true of a box."""
    question, answer = turn
    if "visible" in question:
        return answer == "yes"
    holds = {
        "left": lambda b: b[0] + b[2] < 1,
        "right": lambda b: b[0] + b[2] > 1,
        "large": lambda b: (b[2] - b[0]) * (b[3] - b[1]) >= 0.08,
        "small": lambda b: (b[2] - b[0]) * (b[3] - b[1]) <= 0.04,
    }
    return any(holds[answer](box) for box in boxes)


def lit(lesson_pixels: np.ndarray) -> tuple[float, float, float, float]:
    ground = np.median(lesson_pixels[..., 0])
    ys, xs = np.nonzero(lesson_pixels[..., 0] > (ground + lesson_pixels.max()) / 2)
    return xs.min() / SIDE, ys.min() / SIDE, (xs.max() + 1) / SIDE, (ys.max() + 1) / SIDE


def test_lessons_tell_the_truth_about_what_they_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bright nucleus: side and size are read off the pixels of the finished lesson."""
    from studies.organism import refine
    from studies.organism.augment import View

    monkeypatch.setattr(
        refine, "viewed", lambda p, rng, _: View(shrunk(turned(p, int(rng.integers(4))), rng))
    )
    asked = 0
    for seed in range(12):
        lesson = refine_lesson(nucleus(), np.random.default_rng(seed), 12, 1.0, [NUCLEUS])
        about = [turn for turn in lesson.turns if "nucleus" in turn[0]]
        for turn in about:
            asked += 1
            if turn[1] in ("left", "right"):
                assert truth(turn, [lit(lesson.pixels)])
            assert turn[1] != "large"
        assert {reply for text, reply in lesson.turns if "liver" in text} <= {"no"}
    assert asked > 40


def test_fields_ask_no_sides_and_empty_tiles_ask_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    from studies.organism import refine

    monkeypatch.setattr(refine, "viewed", lambda picture, rng, _: fields(picture, rng))
    turns = [
        turn
        for seed in range(10)
        for turn in refine_lesson(nucleus(), np.random.default_rng(seed), 10, 1.0, [NUCLEUS]).turns
    ]
    assert not any("Which side" in text for text, _ in turns)
    assert {reply for text, reply in turns if "size" in text} == {"small", "large"}
    monkeypatch.undo()
    empty = MedicalPicture(
        np.full((32, 32, 3), 12, np.uint8), absent={"largest nucleus"}, modality="microscopy"
    )
    lesson = refine_lesson(empty, np.random.default_rng(3), 30, 1.0, [NUCLEUS])
    assert {reply for _, reply in lesson.turns} == {"no", "scan"}
    assert not lesson.names.any()


def test_every_kind_of_question_and_every_answer_is_as_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine small structures on the left and one large one on the right: both answers half the time."""
    from studies.organism import refine
    from studies.organism.augment import View

    monkeypatch.setattr(refine, "viewed", lambda picture, rng, _: View(picture))
    monkeypatch.setattr(refine, "jitter", lambda picture, rng: (picture.pixels, picture.boxes, False))
    small = {f"s{i}": (0.05, 0.09 * i, 0.15, 0.09 * i + 0.08) for i in range(9)}
    crowd = MedicalPicture(
        np.zeros((SIDE, SIDE, 3), np.uint8), {**small, "big": (0.5, 0.2, 0.95, 0.9)}, {"liver"}, "CT"
    )
    replies = [turn[1] for turn in refine_lesson(crowd, np.random.default_rng(0), 2000, 1.0, []).turns]
    share = {word: replies.count(word) / len(replies) for word in {*replies}}
    assert 0.2 < share["yes"] < 0.28
    assert 0.22 < share["no"] < 0.28
    for word in ("left", "right", "large", "small"):
        assert 0.09 < share[word] < 0.15, share


def test_modalities_are_drawn_alike_from_training_slices_only() -> None:
    samples = [s for name in ("medical", "balanced") for s in bundled(name, split="train")]
    processor = LlavaProcessor.from_pretrained(folder(), local_files_only=True)
    trainer = RefineTrainer(REFINE, processor, folder())
    trainer.teach_medical(medical_pictures(samples))
    rng = np.random.default_rng(0)
    drawn = [trainer.draw(rng) for _ in range(600)]
    shares = {kind: np.mean([p.modality == kind for p in drawn]) for kind in ("CT", "MR", "microscopy")}
    assert all(0.27 < share < 0.4 for share in shares.values())
    bare = np.mean([not p.boxes for p in drawn if p.modality == "microscopy"])
    assert 0.05 < bare < 0.25
    assert len(trainer.lessons(0)) == REFINE.batch


def test_training_goes_on_and_resumes_into_the_same_weights(tmp_path: Path) -> None:
    recipe = dataclasses.replace(REFINE, mixed_steps=2, batch=2, turns=2, warmup=1)
    processor = LlavaProcessor.from_pretrained(folder(), local_files_only=True)
    torch.set_num_threads(1)

    def made() -> RefineTrainer:
        trainer = RefineTrainer(recipe, processor, folder())
        trainer.teach_medical([nucleus()])
        return trainer

    known = LlavaForConditionalGeneration.from_pretrained(folder(), local_files_only=True).state_dict()
    straight = made()
    assert all(torch.equal(value, known[name]) for name, value in straight.model.state_dict().items())
    straight.run(tmp_path / "straight", log=lambda line: None)
    for stop in (1, None):
        stopped = made()
        stopped.run(tmp_path / "stopped", until=stop, log=lambda line: None)
    ends = stopped.model.state_dict()
    assert all(torch.equal(value, ends[name]) for name, value in straight.model.state_dict().items())
    assert any(not torch.equal(value, known[name]) for name, value in ends.items())
