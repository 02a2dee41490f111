"""A thought is told from the answer after it: in texts, rows and edits, by either executor, alone and in a batch."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

import interp
from interp.conformance.tiny import tiny
from interp.errors import EditError, ModelError, PromptError, ServerError, SiteError
from interp.tracing.reasoning import (
    BLIND,
    MARKS,
    Follower,
    Said,
    Stages,
    _tokens,
    _with_thought,
    blind_from,
    check_closed,
    check_stages,
    leaves_open,
    make_stages,
    marks,
    n_sentences,
    said,
    said_by,
    sentences,
)
from tests.tracing.scripted import Script, by_hand, ids, picture, scripted

OPEN, CLOSED = interp.Prompt(thinking=True), interp.Prompt(thinking=False)
SAID = "there is a circle </think> yes . </s>"


@pytest.fixture(scope="module")
def model() -> tuple[interp.Mllm, Script]:
    return scripted()


class _Letters:
    """A tokenizer of single characters, so that marks take several tokens."""

    all_special_ids = ()

    def __len__(self) -> int:
        return 0x110000

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return "".join(map(chr, ids))

    def convert_tokens_to_ids(self, text: str) -> int | None:
        return ord(text) if len(text) == 1 else None


def _letters(template: str) -> Any:
    return SimpleNamespace(tokenizer=_Letters(), chat_template=template)


@pytest.mark.parametrize("own", MARKS, ids=lambda one: one.end)
@pytest.mark.parametrize("opened", [True, False])
def test_every_known_mark_is_found(own: Any, opened: bool) -> None:
    processor = _letters(f"… {own.end} …")
    begun = "" if opened else own.start
    text = f"{begun} It is round. {own.end}\n\nA circle."
    found = said([ord(c) for c in text], processor, opened)
    assert (found.answer, found.reasoning) == ("A circle.", "It is round.")
    assert found.n_reasoning == text.index(own.end) + len(own.end)
    follow = Follower(processor, opened)
    assert sum(follow(ord(c)) for c in text) == found.n_reasoning
    unfinished = said([ord(c) for c in f"{begun} It is round."], processor, opened)
    assert (unfinished.answer, unfinished.reasoning) == (None, "It is round.")


def test_glm_wraps_its_answer() -> None:
    text = "<think>It is.</think><answer><|begin_of_box|>yes<|end_of_box|></answer>"
    assert said([ord(c) for c in text], _letters("</think>"), False).answer == "yes"


def test_without_a_thought_all_is_the_answer() -> None:
    for template in ("</think>", ""):
        found = said([ord(c) for c in "yes, it is"], _letters(template), False)
        assert (found.answer, found.reasoning, found.n_reasoning) == ("yes, it is", None, 0)


def test_a_thought_closed_but_never_opened_is_no_answer() -> None:
    found = said([ord(c) for c in "It is.</think>yes"], _letters("</think>"), False)
    assert (found.answer, found.reasoning) == ("yes", "It is.")


def test_a_thought_begins_before_the_first_word_or_not_at_all() -> None:
    begun = said([ord(c) for c in " \n<think> It is"], _letters("</think>"), False)
    assert begun == Said(None, "It is", 15)
    late = said([ord(c) for c in "yes <think> no"], _letters("</think>"), False)
    assert late == Said("yes <think> no")


def test_an_answer_that_never_came_is_missing() -> None:
    for text in ("It is", "It is</think>", "It is</think> \n"):
        assert said([ord(c) for c in text], _letters("</think>"), True).answer is None


def test_marks_come_from_template_or_vocabulary(model: tuple[interp.Mllm, Script]) -> None:
    mllm, _ = model
    assert marks(mllm.processor) == MARKS[0]
    assert marks(_letters("no such thing")) is None


def test_the_switch_is_the_templates_own(model: tuple[interp.Mllm, Script]) -> None:
    mllm, _ = model
    ends = {one.thinking: mllm.encode([picture()], one).prompts[0] for one in (OPEN, CLOSED, interp.Prompt())}
    assert ends[True].endswith("assistant :<think> ")
    assert ends[False].endswith("assistant :<think> </think> ")
    assert ends[None].endswith("assistant :")
    assert OPEN.to_dict() == {**interp.Prompt().to_dict(), "thinking": True}


@pytest.mark.parametrize("executor", ["tap", "source"])
def test_rows_of_thought_and_answer(model: tuple[interp.Mllm, Script], executor: Any) -> None:
    mllm, script = model[0].using(executor), model[1]
    sites = [interp.Site(layers=[1], queries=name) for name in ("last", "reasoning", "answer")]
    script.say(ids(mllm, SAID), ids(mllm, "yes </think> no no no no no no"))
    samples = [picture(), picture("what is it where is it ?", 1)]
    trace = mllm.trace(samples, OPEN, [interp.Rows(site) for site in sites], generate=8)
    script.say()
    by_text = {one.reasoning: one for one in trace}
    assert {one.reasoning: one.answer for one in trace} == {
        "there is a circle": "yes .",
        "yes": "no no no no no no",
    }
    assert trace.answers == [one.answer for one in trace]
    for text, n in (("there is a circle", 5), ("yes", 2)):
        one = by_text[text]
        whole, thought, answer = one.reads
        assert one.n_reasoning == n
        assert thought.step.values.tolist() == list(range(1, n + 1))
        assert answer.step.values.tolist() == list(range(n + 1, whole.sizes["step"]))
        np.testing.assert_array_equal(whole.sel(step=thought.step).values, thought.values)
        np.testing.assert_array_equal(whole.sel(step=answer.step).values, answer.values)


@pytest.mark.parametrize("executor", ["tap", "source"])
@pytest.mark.parametrize("stage", ["reasoning", "answer"])
def test_edits_of_one_stage_follow_each_sample(
    model: tuple[interp.Mllm, Script], executor: Any, stage: str
) -> None:
    mllm, script = model[0].using(executor), model[1]
    lines = [ids(mllm, SAID), ids(mllm, "yes </think> no no no no no no")]
    samples = [picture(), picture("what is it where is it ?", 1)]
    reads = [interp.Rows(interp.Site(queries="last"))]
    knockout = interp.Knockout(interp.Site(queries=stage), steps="decode")
    scale = interp.ScaleWeights(interp.Site(layers=[1], queries=stage), 0.5, steps="decode")
    for edit in (knockout, scale):
        script.say(*lines)
        edited = mllm.trace(samples, OPEN, reads, [edit], generate=8)
        script.say(*lines)
        plain = mllm.trace(samples, OPEN, reads, generate=8)
        script.say()
        for one, before in zip(edited, plain, strict=True):
            steps = one.rows.step.values
            inside = (steps >= 1) & ((steps <= one.n_reasoning) == (stage == "reasoning"))
            first = one.rows.isel(layer=0 if edit is knockout else 1).values
            first_before = before.rows.isel(layer=0 if edit is knockout else 1).values
            if edit is knockout:
                assert not first[inside].any()
            else:
                unlike = np.abs(first - first_before).reshape(len(steps), -1).max(axis=1)
                assert (unlike[inside] > 0).all()
            np.testing.assert_allclose(first[~inside], first_before[~inside], atol=1e-6)
            if stage == "answer":  # nothing before the first edited row changes at all
                until = steps <= one.n_reasoning
                np.testing.assert_array_equal(one.rows.values[until], before.rows.values[until])


def test_an_edit_of_the_answer_equals_an_explicit_mask() -> None:
    mllm, script = scripted("eager")
    batch = mllm.encode([picture()], OPEN)
    line = ids(mllm, SAID)
    script.say(line)
    site = interp.Site(layers=[2], queries="last", keys="all")
    edit = interp.Knockout(interp.Site(queries="answer"), steps="decode")
    found = mllm.trace(batch, reads=[interp.Rows(site)], edits=[edit], generate=8)[0]
    script.say()
    assert found.answer == "yes ."
    # the same tokens under teacher forcing: another knockout hides the image from the same rows at once
    n, embedded = batch.tokens[0].length, mllm.embeddings(batch)[0]
    whole = torch.cat([batch.inputs["input_ids"][0], torch.tensor(line)])
    hidden = {row: batch.tokens[0].image.tolist() for row in range(n + found.n_reasoning, len(whole))}
    with_mask = by_hand(mllm, whole, embedded, hidden)
    without = by_hand(mllm, whole, embedded, {})
    assert not torch.allclose(with_mask[-1], without[-1], atol=1e-3)
    forced = mllm.reasoned([picture()], ["there is a circle"], OPEN)
    scored = mllm.score(forced, interp.Target("yes ."), edits=[interp.Knockout(edit.site, steps="decode")])
    logp = with_mask.log_softmax(-1)
    places = range(n + found.n_reasoning - 1, n + found.n_reasoning + 1)
    wanted = sum(float(logp[at, whole[at + 1]]) for at in places)
    assert scored.values[0] == pytest.approx(wanted, abs=1e-4)


def test_what_cannot_be_told_is_refused(model: tuple[interp.Mllm, Script]) -> None:
    mllm, script = model
    with pytest.raises(PromptError, match="thought and not its answer"):
        mllm.score([picture()], interp.Target("yes"), prompt=OPEN)
    script.say(ids(mllm, "<think>"))
    with pytest.raises(PromptError, match="begins a thought"):
        mllm.score([picture()])
    script.say(ids(mllm, "<think> is"))
    with pytest.raises(SiteError, match="begins a thought before its answer"):
        interp.indicators.Attention(queries="answer")(mllm, [picture()])
    script.say(ids(mllm, "there is </think> yes yes"))
    edit = interp.Knockout(interp.Site(queries="answer"), steps="decode")
    with pytest.raises(EditError, match="neither its prompt nor its first token had begun"):
        mllm.trace([picture()], edits=[edit], generate=5)
    script.say()
    with pytest.raises(SiteError, match=r'or rows of "reasoning".*Make a read for each'):
        mllm.trace([picture()], reads=[interp.Rows(interp.Site(queries=("reasoning", "answer")))], generate=3)


def test_what_cannot_hold_a_thought_is_refused(model: tuple[interp.Mllm, Script]) -> None:
    mllm, _ = model
    hf, processor = tiny("paligemma")
    processor.tokenizer.add_tokens(["</think>"])
    with pytest.raises(ModelError, match="sees the whole prompt, so the rows before a thought"):
        interp.wrap(hf, processor).reasoned([picture()], ["it is red"])
    slow = SimpleNamespace(tokenizer=SimpleNamespace(is_fast=False))
    with pytest.raises(PromptError, match="only a fast tokenizer gives"):
        _tokens(slow, "a", "b")
    server = replace(mllm, server=cast(Any, SimpleNamespace()))
    edit = interp.Knockout(interp.Site(queries="answer"), steps="decode")
    with pytest.raises(ServerError, match="after each token whether the thought has ended"):
        make_stages(server, mllm.encode([picture()], OPEN), [], [edit])
    with pytest.raises(PromptError, match=r"one text per sample \(1 sample\)"):
        mllm.reasoned([picture()], ["a", "b"])


def test_deltanet_edits_of_one_stage_are_refused() -> None:
    hf, processor = tiny("qwen3_5")
    processor.tokenizer.add_tokens(["</think>"])
    site = interp.Site(layers="linear", queries="answer", keys="image")
    edit = interp.Knockout(site, steps="decode")
    with pytest.raises(EditError, match="cannot take"):
        interp.wrap(hf, processor).trace([picture()], edits=[edit], generate=3)


def _words(text: str) -> list[str]:
    return [text[start:stop] for start, stop in sentences(text)]


def test_sentences_by_hand() -> None:
    assert _words("One. Two! Three? Four") == ["One.", "Two!", "Three?", "Four"]
    assert _words("2.5 cm, e.g.this\n\n  Then.") == ["2.5 cm, e.g.this", "Then."]
    assert _words("是。不是？好！") == ["是。", "不是？", "好！"]
    assert _words(" \n ") == []


def test_an_answer_is_unwrapped_only_where_it_is_whole() -> None:
    two = "</think><answer>yes</answer> or <answer>no</answer>"
    assert said([ord(c) for c in two], _letters("</think>"), True).answer == two.removeprefix("</think>")
    part = "</think><answer>yes"
    assert said([ord(c) for c in part], _letters("</think>"), True).answer == "<answer>yes"


def test_white_space_may_begin_a_thought_or_an_answer() -> None:
    """What may still begin the start mark counts as the thought, and nothing after it is clear."""
    labels = {text: _labels(text) for text in (" <think>a</think> b", " <thin>", "a <think>")}
    assert labels[" <think>a</think> b"] == "1" * 17 + "00"
    assert labels[" <thin>"] == "1111110"
    assert labels["a <think>"] == "0" * 9


class _Bytes(_Letters):
    """A tokenizer of single bytes, so that characters of marks take several tokens."""

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return bytes(ids).decode(errors="replace")


def test_a_mark_may_be_cut_inside_a_character() -> None:
    follow = Follower(SimpleNamespace(tokenizer=_Bytes(), chat_template="…◁/think▷…"), False)
    thought, answer = "◁think▷é◁/think▷".encode(), "◁yes".encode()
    assert [follow(one) for one in thought + answer] == [True] * len(thought) + [False] * len(answer)


def _labels(text: str) -> str:
    follow = Follower(_letters("</think>"), False)
    return "".join(str(int(follow(ord(c)))) for c in text)


def test_a_prompt_leaves_a_thought_open_or_closes_it() -> None:
    processor = _letters("</think>")
    plain = interp.Prompt()
    assert leaves_open("assistant: <think> \n", plain, processor)
    assert not leaves_open("assistant:", plain, processor)
    assert leaves_open("assistant:", OPEN, processor)
    assert not leaves_open("assistant: <think></think>\n", OPEN, processor)
    assert not leaves_open("assistant: <think>", plain, _letters("no mark"))
    check_closed(["a", "b"], plain, processor)
    with pytest.raises(PromptError, match="thought and not its answer"):
        check_closed(["a", "b <think>"], plain, processor)  # one of them suffices


@pytest.mark.parametrize(
    ("thought", "message"),
    [
        (" \n", "a thought is a text; got"),
        ("it is <think> red", "without its marks '<think>' and '</think>'"),
        ("it is </think> red", "without its marks '<think>' and '</think>'"),
    ],
)
def test_wrong_thoughts_are_explained(model: tuple[interp.Mllm, Script], thought: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        model[0].reasoned([picture()], [thought], OPEN)


def test_no_thought_follows_a_prompt_that_closes_it(model: tuple[interp.Mllm, Script]) -> None:
    with pytest.raises(PromptError, match="closes the thought in the prompt"):
        model[0].reasoned([picture()], ["it is red"], CLOSED)


def test_only_tokens_up_to_the_first_end_are_said(model: tuple[interp.Mllm, Script]) -> None:
    mllm, _ = model
    batch = mllm.encode([picture(), picture()], CLOSED)
    end, word = ids(mllm, "</s>")[0], ids(mllm, "yes")[0]
    lines = [[word, end, word, end], [word, word, word, word]]
    own, _ = said_by(mllm, batch, lines, frozenset({end}))
    assert own == [(word, end), (word,) * 4]


class _Vocabulary(_Letters):
    """A tokenizer of whole words; what it does not know is its first."""

    chat_template: str | None = None

    def __init__(self, *words: str) -> None:
        self.words = ("<unk>", *words)

    def convert_tokens_to_ids(self, text: str) -> int:
        return self.words.index(text) if text in self.words else 0

    def convert_ids_to_tokens(self, place: int) -> str:
        return self.words[place]


def test_marks_of_a_template_come_before_the_vocabularys() -> None:
    processor = SimpleNamespace(tokenizer=_Vocabulary("</think>"), chat_template="…◁/think▷…")
    assert marks(processor) == MARKS[1]
    processor.chat_template = None
    assert marks(processor) == MARKS[0]
    processor.tokenizer.chat_template = "…[/THINK]…"
    assert marks(processor) == MARKS[4]
    assert marks(SimpleNamespace(tokenizer=_Vocabulary("yes"))) is None


def _followed(*lines: str, opened: bool) -> Stages:
    stages = Stages(_letters("</think>"), [opened] * len(lines))
    for follow, line in zip(stages.followers, lines, strict=True):
        for one in line:
            follow(ord(one))
    return stages


def test_a_thought_that_edits_took_for_the_answer_is_refused() -> None:
    text = "It is.</think>yes"
    thought, n = Said("yes", "It is.", 14), [len(text)] * 2
    check_stages(_followed(text, text, opened=True), [thought] * 2, n)
    check_stages(_followed(text, text, opened=False), [Said(text)] * 2, n)
    with pytest.raises(EditError, match="sample 1 of the batch ended a thought"):
        check_stages(_followed(text, text, opened=False), [Said(text), thought], n)
    check_stages(_followed("It i", opened=True), [Said(None, "It is", 5)], [5])  # the last token is not run
    check_stages(_followed("It is   ", opened=True), [Said(None, "It is", 5)], [5])  # padding behind its end


def test_rows_of_a_thought_need_a_model_with_marks(model: tuple[interp.Mllm, Script]) -> None:
    mllm = interp.wrap(*tiny("llava"))
    batch = mllm.encode([picture()])
    read, other = (interp.Rows(interp.Site(queries=name)) for name in ("reasoning", "answer"))
    edit = interp.Knockout(interp.Site(queries="reasoning"), steps="decode")
    for reads, edits in (([other, read], []), ([], [edit])):
        with pytest.raises(
            SiteError, match="neither the chat template nor the tokenizer of this model has the marks"
        ):
            make_stages(mllm, batch, reads, edits)
    assert make_stages(mllm, batch, [other], []) is None
    put = [replace(own, spans={**own.spans, "reasoning": np.array([1])}) for own in batch.tokens]
    assert make_stages(mllm, replace(batch, tokens=tuple(put)), [read], []) is None
    with pytest.raises(SiteError, match="has the marks"):  # a thought was put into one of two prompts
        make_stages(mllm, replace(batch, tokens=(*put, *batch.tokens)), [read], [])
    assert (
        make_stages(model[0], model[0].encode([picture()]), [read], [interp.Knockout(interp.Site())]) is None
    )


def test_one_edit_of_a_stage_among_others_is_followed(model: tuple[interp.Mllm, Script]) -> None:
    batch = model[0].encode([picture(), picture()], OPEN)
    others = [interp.Knockout(interp.Site()), interp.AddResidual([0], "last", np.ones(4))]
    staged = interp.Knockout(interp.Site(queries="answer"), steps="decode")
    assert make_stages(model[0], batch, [], others) is None
    found = make_stages(model[0], batch, [], [*others, staged])
    assert found is not None
    assert len(found.followers) == 2


class _Pieces:
    """A fast tokenizer of words, single marks and runs of line breaks; a piece's id is its place among all texts'."""

    is_fast = True

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        found = list(re.finditer(r"\n+|\w+|[^\w\n]", text))
        self.pieces += [one.group() for one in found if one.group() not in self.pieces]
        ids = [self.pieces.index(one.group()) for one in found]
        return {"input_ids": ids, "offset_mapping": [one.span() for one in found]}


@pytest.mark.parametrize(
    ("prompt", "added", "pieces", "places"),
    [
        ("A:", "yes no", ["yes", " ", "no"], [(0, 3), (3, 4), (4, 6)]),
        ("x<image>A:", "yes", ["yes"], [(0, 3)]),
        ("A\n", "\nyes", ["\n", "yes"], [(0, 1), (1, 4)]),  # together the line breaks would be one token
    ],
)
@pytest.mark.parametrize("image", ["<image>", None])
def test_tokens_after_a_prompt_and_their_characters(
    prompt: str, added: str, pieces: list[str], places: list[tuple[int, int]], image: str | None
) -> None:
    tokenizer = _Pieces()
    ids, found = _tokens(SimpleNamespace(tokenizer=tokenizer, image_token=image), prompt, added)
    assert [tokenizer.pieces[one] for one in ids] == pieces
    assert found == places


@pytest.mark.parametrize(("prompt", "head"), [(OPEN, 0), (interp.Prompt(), 1)])
def test_a_thoughts_sentences_begin_at_their_first_tokens(
    model: tuple[interp.Mllm, Script], prompt: interp.Prompt, head: int
) -> None:
    """(<think>) there is a circle . yes </think>"""
    mllm, _ = model
    n = mllm.encode([picture()], prompt).tokens[0].length
    batch = mllm.reasoned([picture()], ["there is a circle . yes"], prompt)
    spans = {name: at.tolist() for name, at in batch.tokens[0].spans.items()}
    stop = n + head + 7
    assert batch.tokens[0].length == stop
    assert spans["reasoning"] == list(range(n, stop))
    firsts = [n + head, n + head + 5, n + head + 6]
    names = ["from sentence 0", "from sentence 1", "from the end"]
    assert [spans[name] for name in names] == [list(range(first, stop)) for first in firsts]
    assert n_sentences(batch, 0) == 2
    lines = blind_from(mllm, batch, 0)
    assert [one.spans[BLIND].tolist() for one in lines.tokens] == [
        list(range(first, stop)) for first in firsts
    ]


def test_a_given_thought_is_written_between_its_marks(model: tuple[interp.Mllm, Script]) -> None:
    """Tokens of a tokenizer that has line breaks: 4 of "<think>\\n", It, is, full stop, Yes, and the end mark."""
    mllm, _ = model
    one = mllm.encode([picture()]).singles[0]
    processor = SimpleNamespace(tokenizer=_Pieces(), image_token=None)
    found = _with_thought(one, " It is. Yes ", MARKS[0], processor)
    added = "<think>\nIt is. Yes\n</think>\n\n"
    assert (found.rendered.text, found.rendered.laid) == (one.text + added, one.rendered.laid + added)
    n = one.tokens.length
    assert found.tokens.length == n + 16
    spans = {name: (at[0] - n, at[-1] - n) for name, at in found.tokens.spans.items() if len(at)}
    wanted = {"reasoning": 0, "from sentence 0": 4, "from sentence 1": 9, "from the end": 11}
    assert {name: spans[name] for name in wanted} == {name: (first, 15) for name, first in wanted.items()}
    opened = mllm.encode([picture()], OPEN).singles[0]
    again = _with_thought(opened, "It is.", MARKS[0], processor)
    assert again.text == opened.text + "It is.\n</think>\n\n"
