"""Targets in the context of a prompt, and prompts with an answer behind them, against eager steps one by one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_allclose
from tokenizers import Tokenizer, models, pre_tokenizers

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError, PromptError
from interp.inputs.prompt import Target, diff
from interp.tracing import Knockout, Mllm, Rows, Site, wrap
from interp.tracing.cost import Meter
from interp.tracing.execution import execute
from interp.tracing.target import ANSWER_ROWS, PROMPT_LAST, aims, answer_ids, forced
from tests.tiny import uneven_samples as samples
from tests.tracing.reference_attention import greedy

LONG, SHORT = "yes no or", "red"
"""Three tokens and one of the tiny models' words."""


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl", "gemma3", "paligemma"])
def mllm(request) -> Mllm:
    return wrap(*tiny(request.param))


@pytest.fixture(scope="module")
def eager(mllm) -> Any:
    return tiny(mllm.family, "eager")[0]


def by_hand(mllm: Mllm, eager: Any, i: int, words: str, hide: Any = None) -> list[float]:
    """log p of each word's token, one whole eager pass per token."""
    ids = [mllm.processor.tokenizer.convert_tokens_to_ids(word) for word in words.split()]
    inputs = mllm.encode(samples()[i]).inputs
    kind = int(mllm.visibility.attends == "prefix")
    found = greedy(eager, inputs, len(ids), hide=hide, type_of_generated=kind, forced=ids)
    logits = torch.from_numpy(np.stack(found.logits)).double()
    return [float(line[token]) for line, token in zip(logits.log_softmax(-1), ids, strict=True)]


def test_scores_are_eagers_whatever_the_target(mllm, eager):
    found = {
        Target(LONG): lambda i: sum(by_hand(mllm, eager, i, LONG)),
        Target(LONG, "mean"): lambda i: np.mean(by_hand(mllm, eager, i, LONG)),
        Target(diff(SHORT, "no")): lambda i: (
            by_hand(mllm, eager, i, SHORT)[0] - by_hand(mllm, eager, i, "no")[0]
        ),
        Target(diff(SHORT, LONG), "mean"): lambda i: (
            by_hand(mllm, eager, i, SHORT)[0] - np.mean(by_hand(mllm, eager, i, LONG))
        ),
    }
    for target, reference in found.items():
        scores = mllm.score(samples(), target)
        assert_allclose(scores.values, [reference(i) for i in range(3)], atol=5e-5)
        assert_allclose(mllm.score(mllm.prefix(samples()), target).values, scores.values, atol=5e-5)


def test_the_models_own_answer_is_what_it_generates(mllm):
    batch = mllm.encode(samples())
    tokenizer = mllm.processor.tokenizer
    one, three = (aims(mllm, batch, Target(tokens=n)) for n in (1, 3))
    for i, answer in enumerate(mllm.trace(batch, generate=3).answers):
        assert tokenizer.decode(three[i].answers[0], skip_special_tokens=True).strip() == answer
        assert one[i].answers[0] == three[i].answers[0][:1]
    alone = [mllm.score(sample, Target(tokens=3)).values[0] for sample in samples()]
    assert_allclose(mllm.score(batch, Target(tokens=3)).values, alone, atol=5e-5)
    assert aims(mllm, batch, Target("yes")).cost.forwards == 0
    assert (one.cost.forwards, three.cost.forwards) == (1, 3)


def test_edits_reach_the_rows_of_the_answer_as_in_generation(mllm, eager):
    tokens = mllm.encode(samples()[1]).tokens[0]
    hidden = np.arange(tokens.n) % 2 == 0

    def hide(layer: int, n: int) -> torch.Tensor:
        found = torch.zeros(n, n, dtype=torch.bool)
        found[int(tokens.image[-1]) + 1 :, tokens.image[hidden]] = True
        return found

    edit = Knockout(Site(queries=("after_image", "answer"), keys=interp.image_mask(hidden)), steps="all")
    scores = mllm.score(samples()[1], Target(LONG), edits=[edit])
    assert_allclose(scores.values, sum(by_hand(mllm, eager, 1, LONG, hide)), atol=5e-5)


def test_forced_batches_predict_every_token_in_one_pass(mllm, eager):
    batch = mllm.encode(samples())
    answers = [found.answers[0] for found in aims(mllm, batch, Target(LONG))]
    answers[1] = answers[1][:1]
    if mllm.visibility.attends == "prefix":
        with pytest.raises(ModelError, match=r"would be seen too\. Use a target of one token, or mllm.score"):
            forced(mllm, batch, answers)
        return
    longer = forced(mllm, batch, answers)
    for given in (longer, mllm.prefix(batch).of(longer), mllm.prefix(batch, stop="last").of(longer)):
        with Meter(mllm.device) as meter:
            _, _, outcome = execute(mllm, given, None, [], [], meter, keep=3)
        for i, ids in enumerate(answers):
            tail = outcome.tail[i, -len(ids) :].double().log_softmax(-1)
            reference = by_hand(mllm, eager, i, LONG)[: len(ids)]
            assert_allclose(tail[range(len(ids)), list(ids)], reference, atol=5e-5)
    for i, tokens in enumerate(longer.tokens):
        last = batch.tokens[i].length - 1
        assert tokens.positions(PROMPT_LAST).tolist() == [last]
        assert tokens.positions(ANSWER_ROWS).tolist() == [*range(last, last + len(answers[i]))]
        assert tokens.positions("after_image")[-1] == last + len(answers[i]) - 1


def test_a_prefix_up_to_the_last_row_serves_reads_of_it(mllm):
    reads = [Rows(Site(queries="last"))]
    whole = mllm.trace(samples(), reads=reads)
    prefix = mllm.prefix(samples(), stop="last")
    after = mllm.trace(prefix, reads=reads)
    assert_allclose(after.logits, whole.logits, atol=3e-5)
    for mine, reference in zip(after, whole, strict=True):
        assert_allclose(mine.rows, reference.rows, atol=2e-6)
    if mllm.visibility.attends != "prefix":
        assert after.cost.tokens == len(prefix)


@pytest.fixture
def spelling() -> Any:
    """A tokenizer that merges "Ġyes", and two line breaks into one token."""
    pieces = ["A", ":", "Ċ", "Ġ", "y", "e", "s", "ye", "yes", "Ġyes", "ĊĊ"]
    merges = [("y", "e"), ("ye", "s"), ("Ġ", "yes"), ("Ċ", "Ċ")]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
    return SimpleNamespace(tokenizer=made, image_token="<image>")


@pytest.mark.parametrize(
    ("prompt", "answer", "tokens"),
    [
        ("A:", "yes", ["Ġyes"]),
        ("<image>A:", " yes", ["Ġyes"]),
        ("A\n", "yes", ["yes"]),
        (
            "A\n",
            "\nyes",
            ["Ċ", "yes"],
        ),  # together the line breaks would be one token, half of it the prompt's
    ],
)
def test_answers_are_spelt_as_they_follow_the_prompt(spelling, prompt, answer, tokens):
    found = answer_ids(spelling, prompt, answer)
    assert spelling.tokenizer.convert_ids_to_tokens(list(found)) == tokens


def test_errors_say_what_to_do(spelling, unchecked):
    model = wrap(*tiny("llava"))
    with pytest.raises(
        PromptError, match=r'target is an interp.Target, such as Target\("yes"\); got \'yes\''
    ):
        model.score(samples(), "yes")
    with pytest.raises(
        PromptError, match=r"the difference is always zero\. Name answers that the tokenizer tells"
    ):
        model.score(samples(), Target(diff("yes", "yes ")))
    with pytest.raises(ModelError, match='stop, where a prefix ends, is "image" or "last"; got \'end\''):
        model.prefix(samples(), stop="end")
    with pytest.raises(PromptError, match="makes no token from the answer 'q'"):
        answer_ids(spelling, "A:\n", "q")


def test_an_answer_outside_the_vocabulary_is_refused():
    model = wrap(*tiny("llava"))
    known, unknown = (
        model.processor.tokenizer(word, add_special_tokens=False).input_ids for word in ("yes", "🦄")
    )
    assert unknown == [model.processor.tokenizer.unk_token_id] != known
    for target in (Target("🦄"), Target("yes 🦄"), Target(diff("yes", "🦄"))):
        with pytest.raises(
            PromptError, match=r"no token for a part of the answer .*🦄.* Name an answer whose words"
        ):
            model.score(samples()[0], target)
    assert np.isfinite(model.score(samples()[0], Target("yes")).values[0])
