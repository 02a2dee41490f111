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
from interp.tracing.cost import Cost, Meter
from interp.tracing.execution import execute
from interp.tracing.target import (
    ANSWER_ROWS,
    PROMPT_LAST,
    Aim,
    Aims,
    Scores,
    _Follow,
    _greedy,
    aims,
    answer_ids,
    forced,
    is_half,
    joined_scores,
    wide_logits,
)
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


def test_scores_of_parts_come_back_in_the_order_of_samples():
    one, two, three = (Aim(((i,),), (1.0,)) for i in range(3))
    parts = [
        (
            (2, 0),
            Scores(np.array([-3.0, -1.0]), Aims((three, one), Cost(0, 0, 1, 0, 5)), Cost(0, 0, 2, 0, 7)),
        ),
        ((1,), Scores(np.array([-2.0]), Aims((two,), Cost(0, 0, 4, 0, 5)), Cost(0, 0, 8, 0, 7))),
    ]
    found = joined_scores(parts)
    assert found.values.tolist() == [-1, -2, -3]
    assert found.aims.each == (one, two, three)
    assert (found.aims.cost.forwards, found.cost.forwards) == (5, 10)


def test_answers_are_fed_token_by_token_and_their_last_again():
    follow = _Follow([(1,), (2, 3, 4)])
    assert [follow(torch.full((2, 5), float(i))).tolist() for i in range(3)] == [[1, 2], [1, 3], [1, 4]]
    assert [step[0, 0].item() for step in follow.steps] == [0, 1, 2]


def test_an_end_token_is_an_answer_only_where_it_is_first(monkeypatch):
    lines = torch.tensor([[9, 5, 5], [5, 9, 6], [5, 6, 7]])
    monkeypatch.setattr("interp.tracing.target.execute", lambda *_, **__: (0, 0, SimpleNamespace(ids=lines)))
    monkeypatch.setattr("interp.tracing.target.ends", lambda _: frozenset({9}))
    monkeypatch.setattr("interp.tracing.target._answer_start", lambda _, ids: ids)
    model: Any = wrap(*tiny("llava"))
    found = _greedy(model, model.encode(samples()), 3, Meter(torch.device("cpu")))
    assert found == [(9,), (5,), (5, 6, 7)]


def test_the_output_layer_is_as_it_was_after_an_error():
    head = torch.nn.Linear(3, 2).bfloat16()
    hf, given = SimpleNamespace(get_output_embeddings=lambda: head), torch.ones(1, 3, dtype=torch.bfloat16)
    with wide_logits(hf):
        wanted = (head.weight.float().sum(1) + head.bias.float())[None]
        assert_allclose(head(given).detach(), wanted.detach())
        assert head(given).dtype == torch.float32
    with pytest.raises(ValueError, match="boom"), wide_logits(hf):
        raise ValueError("boom")
    assert not head._forward_hooks
    head.float()
    with wide_logits(hf):
        assert not head._forward_hooks


def test_which_dtypes_have_fewer_digits():
    kinds = (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int8)
    assert [is_half(kind) for kind in kinds] == [True, True, False, False, False]
