"""The bundled organism is what docs/organism.md says it is, on scenes of a seed used for nothing else."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoProcessor, LlavaForConditionalGeneration

import interp
from interp.data.scenes import natural_scenes
from interp.errors import ModelError
from interp.organism import folder
from interp.organism.parts import GRID, vocabulary
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
