from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import PromptError
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Diff, Prompt, Target, diff
from interp.inputs.sample import Sample

IMAGE = np.zeros((2, 2, 3), np.uint8)


def ask(question: str = "Is there a nodule?", **kwargs) -> Sample:
    return Sample(IMAGE, question, **kwargs)


def test_the_papers_prompts():
    assert PAPER_PROMPT.text(ask()) == "Is there a nodule? Answer the question using a single word or phrase."
    assert (
        GENERIC_PROMPT.text(ask())
        == "Write a general description of the image. Answer the question using a single word or phrase."
    )
    assert GENERIC_PROMPT.text(ask("")) == GENERIC_PROMPT.text(ask())


def test_multiple_choice_is_llavas_template():
    sample = ask("Which organ?", options=["liver", "left lung"], answer="liver")
    choices = "A. liver\nB. left lung"
    expected = f"Which organ?\n{choices}\nAnswer with the option's letter from the given choices directly."
    assert PAPER_PROMPT.text(sample) == expected
    assert Prompt("{question}").text(sample) == expected
    assert Prompt("Look. {question} Think.").text(sample) == f"Look. {expected} Think."
    assert Prompt("{question}", options="none").text(sample) == "Which organ?"
    assert PAPER_PROMPT.text(sample.replace(options=None)) == PAPER_PROMPT.text(ask("Which organ?"))
    assert GENERIC_PROMPT.text(sample) == GENERIC_PROMPT.text(ask())


def test_more_choices_than_letters():
    many = [str(i) for i in range(27)]
    assert "\nZ. 25\n" in PAPER_PROMPT.text(ask(options=many[:26]))
    with pytest.raises(PromptError, match=r'26 choices; got 27. Use options="none"'):
        PAPER_PROMPT.text(ask(options=many))


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip),
    st.sampled_from(["{question}", "Look at {{this}}. {question} Now.", "{question} ok"]),
    st.sampled_from([None, ("a", "b"), ("{x}", "{}")]),
)
def test_question_span_is_the_users_words(question, template, options):
    prompt, sample = Prompt(template), ask(question, options=options)
    start, end = prompt.question_span(sample)
    assert prompt.text(sample)[start:end] == question
    assert prompt.text(sample)[:start] == template.split("{question}")[0].replace("{{", "{").replace(
        "}}", "}"
    )


def test_a_generic_prompt_has_no_question():
    assert GENERIC_PROMPT.question_span(ask()) is None
    assert not GENERIC_PROMPT.has_question
    assert PAPER_PROMPT.has_question


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{question} {label}", r"may contain \{question\} and no other field; got \{label\}"),
        ("{}", r"got \{\}"),
        ("{question!r}", r"got \{question!r\}"),
        ("{question:>9}", r"got \{question:>9\}"),
        ("{question} {question}", "at most once; got it 2×"),
        ("{question", r"Write \{\{ and \}\}"),
        ("question}", r"Write \{\{ and \}\}"),
        ("", "a template is a text"),
        (None, "a template is a text"),
    ],
)
def test_bad_templates(unchecked, template, message):
    with pytest.raises(PromptError, match=message):
        Prompt(template)


def test_other_bad_arguments():
    with pytest.raises(PromptError, match='options is "letters" or "none"; got \'numbers\''):
        Prompt(options="numbers")
    with pytest.raises(PromptError, match=r"has no question, but the template .* GENERIC_PROMPT"):
        PAPER_PROMPT.text(ask("  "))


@pytest.mark.parametrize("wrong", [5, b"be brief", ["be brief"], np.array(["a", "b"])])
def test_a_prompts_other_arguments_have_types(wrong, unchecked):
    with pytest.raises(PromptError, match="system is the system message, a text, or None; got"):
        Prompt(system=wrong)
    with pytest.raises(PromptError, match="image_first is True or False; got"):
        Prompt(image_first=wrong)
    with pytest.raises(PromptError, match='options is "letters" or "none"; got'):
        Prompt(options=wrong)
    with pytest.raises(PromptError, match='reduce is "sum" or "mean"; got'):
        Target(reduce=wrong)


def test_numpys_numbers_are_numbers(unchecked):
    assert Target(tokens=np.int64(2)).to_dict()["tokens"].__class__ is int


def test_messages():
    sample = Sample(images=[IMAGE, IMAGE], question="Which?")
    text = {"type": "text", "text": "Which?"}
    images = [{"type": "image"}, {"type": "image"}]
    assert Prompt("{question}").messages(sample) == [{"role": "user", "content": [*images, text]}]
    last = Prompt("{question}", image_first=False, system="Be brief.").messages(sample)
    assert last == [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [text, *images]},
    ]


def test_prompts_are_values():
    assert Prompt() == PAPER_PROMPT
    assert len({Prompt(), PAPER_PROMPT, GENERIC_PROMPT}) == 2
    prompt = Prompt("{question}", "none", False, "sys")
    assert Prompt(**prompt.to_dict()) == prompt
    plain = {"template": "{question}", "options": "none", "image_first": False, "system": "sys"}
    assert prompt.to_dict() == plain
    for thinking in (True, False):
        thought = Prompt(**plain, thinking=thinking)
        assert thought.to_dict() == {**plain, "thinking": thinking}
        assert thought != prompt
    assert Prompt().to_dict()["image_first"] is True


def test_a_video_is_one_part_of_the_message():
    clip = Sample(video=np.zeros((3, 4, 4, 3), np.uint8), fps=1, question="Which?")
    ((turn,),) = ([one["content"] for one in Prompt("{question}").messages(clip)],)
    assert turn == [{"type": "video"}, {"type": "text", "text": "Which?"}]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Prompt("a\x00"), "template holds the control character"),
        (lambda: Prompt(system="a\x00"), "system holds the control character"),
        (lambda: Prompt(thinking=1), "thinking is True or False; got 1"),
        (lambda: Target("a\x00"), "a target holds the control character"),
        (lambda: diff("a", "b\x00"), "an answer holds the control character"),
        (lambda: diff(3, "b"), "diff compares two non-empty answers; got 3"),
        (lambda: diff("a", " "), "diff compares two non-empty answers; got ' '"),
        (lambda: Target(tokens=True), "tokens is a number of tokens, 1 or more; got True"),
        (lambda: Prompt().text("Is it?"), "a prompt is written for an interp.Sample; got 'Is it"),
    ],
)
def test_texts_that_cannot_be_stored_and_types_are_refused(unchecked, make, message):
    with pytest.raises(PromptError, match=message):
        make()


def test_targets():
    assert Target() == Target("greedy", reduce="sum")
    assert Target(diff("yes", "no")).spec == Diff("yes", "no")
    assert Target(diff("yes", "no"), "mean").to_dict() == {"spec": {"diff": ["yes", "no"]}, "reduce": "mean"}
    assert Target("left lung").to_dict() == {"spec": "left lung", "reduce": "sum"}
    assert len({Target("a"), Target("a"), Target("b"), Target("a", "mean")}) == 3
    assert Target(tokens=3).to_dict() == {"spec": "greedy", "reduce": "sum", "tokens": 3}


@pytest.mark.parametrize("spec", ["", "  ", None, ("a", "b")])
def test_bad_targets(unchecked, spec):
    with pytest.raises(PromptError, match='a target is "greedy", an answer or diff'):
        Target(spec)


def test_bad_reductions_and_diffs():
    with pytest.raises(PromptError, match='"sum" or "mean"; got \'max\''):
        Target("yes", reduce="max")
    with pytest.raises(PromptError, match="tokens is a number of tokens, 1 or more; got 0"):
        Target(tokens=0)
    with pytest.raises(PromptError, match="of the answer 'yes' all tokens count"):
        Target("yes", tokens=2)
    with pytest.raises(PromptError, match="with itself is always zero"):
        diff("yes", "yes")
    with pytest.raises(PromptError, match="two non-empty answers; got ''"):
        diff("yes", "")
