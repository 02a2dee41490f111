"""The bundled organism is what docs/organism.md says it is, on scenes of a seed used for nothing else."""

import math
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoProcessor, LlavaConfig, LlavaForConditionalGeneration

import interp
from interp.data.scenes import natural_scenes
from interp.errors import ModelError
from interp.organism import folder
from interp.organism.parts import GRID, build_model, build_processor, vocabulary
from interp.organism.places import ORGANISMS
from studies.organism.counterfactuals import counterfactual

SEED = 77


@pytest.fixture(scope="module")
def mllm() -> interp.Mllm:
    return interp.load("organism")


def replies(mllm: interp.Mllm, samples: list[interp.Sample]) -> list[str]:
    logits = mllm.trace(samples).logits.values
    return [mllm.processor.tokenizer.decode([i]) for i in logits.argmax(-1)]


def test_plain_from_pretrained_gives_the_same_logits(mllm: interp.Mllm) -> None:
    model = LlavaForConditionalGeneration.from_pretrained(folder()).eval()
    processor = AutoProcessor.from_pretrained(folder())
    sample = interp.data.bundled("natural", n=1)[0]
    chat = interp.PAPER_PROMPT.messages(sample)
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    plain = model(**processor(images=[sample.load()], text=[prompt], return_tensors="pt")).logits[0, -1]
    assert np.allclose(plain.detach().numpy(), mllm.trace([sample]).logits[0].values, atol=1e-5)


def test_size_on_disk_and_shape(mllm: interp.Mllm) -> None:
    assert sum(f.stat().st_size for f in Path(folder()).iterdir()) < 15e6
    assert (mllm.family, mllm.n_layers, mllm.n_heads, mllm.n_key_value_heads) == ("llava", 6, 8, 4)
    assert mllm.encode([interp.data.bundled("natural", n=1)[0]]).tokens[0].grid == (GRID, GRID)


def test_answers_each_question_type_on_held_out_scenes(mllm: interp.Mllm) -> None:
    samples = list(interp.data.bundled("natural", n=60, seed=SEED))
    said = replies(mllm, samples)
    for about in ("colour", "size", "side"):
        right = [a == s.answer for a, s in zip(said, samples, strict=True) if s.meta["about"] == about]
        assert np.mean(right) >= 0.8, about


def test_generic_prompt_is_known(mllm: interp.Mllm) -> None:
    natural, medical = (list(interp.data.bundled(name, n=4)) for name in ("natural", "medical"))
    logits = mllm.trace(natural + medical, prompt=interp.GENERIC_PROMPT).logits.values
    assert [mllm.processor.tokenizer.decode([i]) for i in logits.argmax(-1)] == ["scene"] * 4 + ["scan"] * 4


def test_only_recolouring_the_object_changes_the_answer(mllm: interp.Mllm) -> None:
    rng = np.random.default_rng(SEED)
    made = [
        counterfactual(scene, q, rng) for scene, q in natural_scenes("test", 90, SEED) if q.about == "colour"
    ]
    cases = [c for c in made if c is not None]
    assert len(cases) >= 25

    def ask(version: str) -> list[str]:
        return replies(
            mllm, [interp.Sample(image=getattr(c, version).render(), question=c.question.text) for c in cases]
        )

    follows = np.mean([a == c.inside_answer for a, c in zip(ask("inside"), cases, strict=True)])
    stays = np.mean([a == c.question.answer for a, c in zip(ask("outside"), cases, strict=True)])
    assert follows >= 0.8
    assert stays >= 0.8


def test_a_built_organism_is_of_the_stored_shape() -> None:
    built, stored = build_model().config.to_dict(), LlavaConfig.from_pretrained(folder()).to_dict()
    own = {"architectures", "dtype"}  # what a stored one says besides
    assert {k: v for k, v in built.items() if k not in own} == {
        k: v for k, v in stored.items() if k not in own
    }
    assert built["interp_organism"] is True


def test_a_built_processor_is_the_stored_one() -> None:
    built, stored = build_processor(), AutoProcessor.from_pretrained(folder())
    assert built.image_processor.to_dict() == stored.image_processor.to_dict()
    for name in (
        "chat_template", "patch_size", "num_additional_image_tokens", "vision_feature_select_strategy"
    ):  # fmt: skip
        assert getattr(built, name) == getattr(stored, name), name
    words = ["USER: <image>\nWhat color is the Circle, left? ASSISTANT: zebra.", "a"]
    found, expected = (dict(one.tokenizer(words, padding=True)) for one in (built, stored))
    assert found == expected
    assert built.tokenizer.special_tokens_map == stored.tokenizer.special_tokens_map
    ids = vocabulary()
    assert found["input_ids"][0][:3] == [1, ids["user"], ids[":"]]
    assert found["input_ids"][0][-2:] == [ids["<unk>"], ids["."]]
    assert found["input_ids"][1][-2:] == [1, ids["a"]]  # padded on the left
    assert set(found["input_ids"][1][:-2]) == {0}


def test_patches_begin_with_waves_along_rows_and_columns() -> None:
    """Half the width for rows, half for columns; sines first; from a twenty-fourth of π a patch to 2/3 of π."""
    table = build_model().model.vision_tower.embeddings.position_embedding.weight.detach().numpy()
    for row, column in ((0, 0), (0, 11), (7, 2), (11, 11)):
        found = table[1 + 12 * row + column]
        for start, place in ((0, row), (64, column)):
            slow, fast = (place + 0.5) * math.pi / 24, (place + 0.5) * math.pi * 2 / 3
            expected = [math.sin(slow), math.sin(fast), math.cos(slow), math.cos(fast)]
            wave = found[[start, start + 31, start + 32, start + 63]]
            assert wave == pytest.approx([0.5 * one for one in expected], abs=1e-5)
    assert abs(table[0]).max() < 0.2  # the class token's stays as it was


def test_a_vocabulary_of_256_words_is_full() -> None:
    known = [word for word in vocabulary() if not word.startswith("<unused")]
    full = vocabulary([f"w{i}" for i in range(256 - len(known))])
    assert (len(full), list(full)[-1]) == (256, f"w{255 - len(known)}")
    with pytest.raises(ValueError, match="257 words do not fit into a vocabulary of 256"):
        vocabulary([f"w{i}" for i in range(257 - len(known))])


def test_every_bundled_organism_has_its_own_weights() -> None:
    assert len({folder(name) for name in ORGANISMS}) == len(ORGANISMS)


def test_weights_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ORGANISMS, "organism-1", "nowhere")
    with pytest.raises(ModelError, match=r"the weights of 'organism-1' are not at .*nowhere\. Reinstall"):
        folder("organism-1")


def test_vocabulary_never_moves_and_never_overflows() -> None:
    assert vocabulary(["liver"])["purple"] == vocabulary()["purple"]
    assert vocabulary(["liver", "left"])["liver"] == vocabulary()["<unused0>"]
    with pytest.raises(ValueError, match="do not fit into a vocabulary of 256"):
        vocabulary([f"w{i}" for i in range(300)])


def test_unknown_organism_names_those_there_are() -> None:
    with pytest.raises(
        ModelError,
        match=r"no bundled organism is called 'organsim'; there are organism, organism-1, shortcut-organism",
    ):
        folder("organsim")
