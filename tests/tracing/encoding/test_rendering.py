"""The question in the rendered prompt, and what a chat template must not leave out. No weights are needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from jinja2.exceptions import SecurityError
from transformers.utils import chat_template_utils
from transformers.utils.chat_template_utils import render_jinja_template

from interp.conformance.tiny import recipe
from interp.errors import PromptError
from interp.inputs.prompt import GENERIC_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.inputs.tokens import word
from interp.models.adapter import find
from interp.tracing.encoding.batch import Batch
from interp.tracing.encoding.encoder import Encoder
from interp.tracing.encoding.rendering import bounded
from tests.covering import every_family
from tests.tiny import TEMPLATE

PICTURE = np.random.default_rng(0).integers(0, 255, (84, 90, 3), np.uint8)


def encoder(family: str = "llava", template: str | None = "its own") -> Encoder:
    """Encodes for a family, with its chat template, another one, or (None) its fallback prompt."""
    made = recipe(family)
    config, processor = made.config(), made.processor()
    processor.tokenizer.padding_side = "left"
    if template != "its own":
        processor.chat_template = template

    def positions(inputs: Any) -> torch.Tensor:
        return inputs["attention_mask"].cumsum(-1) - 1

    settings = (processor, find(config), config, torch.device("cpu"), torch.float32)
    return Encoder(*settings, positions)


def ask(question: str, **fields: Any) -> Sample:
    return Sample(PICTURE, question, **fields)


def ids(batch: Batch) -> np.ndarray:
    return batch.singles[0].inputs["input_ids"][0].numpy()


PROMPTS = (
    Prompt("{question}"),
    Prompt("a is user ? : {question} a is user ? :", system="be a user : is ?"),
    Prompt("is {question}", image_first=False),
)


@pytest.mark.covering
@pytest.mark.parametrize("template", ["its own", None], ids=["template", "fallback"])
@pytest.mark.parametrize("family", every_family())
def test_a_question_is_where_another_one_changes_the_tokens(family, template):
    encode = encoder(family, template)
    for prompt in PROMPTS:
        first, second = (ids(encode(ask(one, options=("a", "is")), prompt)) for one in ("w90", "w91"))
        true = np.flatnonzero(first != second).tolist()
        for question in ("a", "is", "user", "?", ":", "  a \n"):
            tokens = encode(ask(question, options=("a", "is")), prompt).tokens[0]
            assert tokens.positions("question").tolist() == true, (prompt, question)


def test_a_question_that_holds_the_prompt_around_it_is_whole():
    prompt = Prompt("is it ? {question} is it ?", system="be brief")
    batch = encoder()(ask("be brief user : is it ? is it ?"), prompt)
    found = batch.tokens[0].positions("question")
    assert len(found) == 10 == found[-1] - found[0] + 1
    assert [text for text, _ in batch.tokens[0].words] == ["be", "brief", "user", "is", "it", "is", "it"]


def test_words_are_found_in_the_tokens_of_their_script():
    for question, wanted in (("左肺に結節 ?", "結節"), ("le café", "CAFE\u0301"), ("the X-ray", "x‑ray")):
        assert len(encoder()(ask(question), Prompt("{question}")).tokens[0].positions(word(wanted)))


@pytest.mark.parametrize(
    ("written", "marks"),
    [
        ("| replace('where', 'what')", None),
        ("| upper", None),
        ("[:11] if c['text'] | length < 12 else 'where is it' ~ c['text']", None),
        ("~ ' / ' ~ c['text']", None),
        ("| trim", 3),
    ],
)
def test_a_question_that_is_rewritten_or_repeated_has_no_place(written, marks):
    encode = encoder(
        template="<image> {% for c in messages[0]['content'] if c['type'] == 'text' %}{{ c['text'] "
        + written
        + " }}{% endfor %}"
    )
    spans = encode(ask("where is it"), Prompt("{question}")).tokens[0].spans
    assert (len(spans["question"]) if spans else None) == marks


SPECIAL = ("</s>", "<pad>", "<s>", "<image>", "<image></s>")


@pytest.mark.parametrize("token", SPECIAL)
def test_special_tokens_in_what_data_say_are_refused(token):
    for sample in (ask(f"is {token} there"), ask("which ?", options=["a", f"x{token}"])):
        with pytest.raises(
            PromptError, match=r"take it out of the question|holds '<.*>', which the tokenizer reads"
        ):
            encoder()(sample, Prompt("{question}"))


def test_the_field_that_holds_a_special_token_is_named():
    for sample, said in (
        (ask("is </s> there"), r"the question of sample .* holds '</s>'.*sample\.replace\(question=…\)"),
        (ask("which ?", options=["a", "x</s>"]), r"the option of sample .*sample\.replace\(options=…\)"),
    ):
        with pytest.raises(PromptError, match=said):
            encoder()(sample, Prompt("{question}"))


def test_special_tokens_are_those_of_now_and_no_words():
    """One added after the first prompt counts; one that could be a word, or of two signs, does not."""
    encode, sample = encoder(), ask("is <mine> there , a nodulex [] ?")
    encode(sample, Prompt("{question}"))
    encode.processor.tokenizer.add_special_tokens({"extra_special_tokens": ["nodulex", "[]"]})
    encode(sample, Prompt("{question}"))
    encode.processor.tokenizer.add_special_tokens({"extra_special_tokens": ["nodulex", "[]", "<mine>"]})
    with pytest.raises(PromptError, match="holds '<mine>', which the tokenizer reads as a special token"):
        encode(sample, Prompt("{question}"))


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
def test_a_templates_switch_is_set_by_its_name(name):
    switched = USER + TEXT + f"{{% if {name} is defined and not {name} %}}brief{{% endif %}}"
    ends = [
        encoder(template=switched)(ask("is it"), Prompt("{question}", thinking=one)).prompts[0].split()[-1]
        for one in (None, True, False)
    ]
    assert ends == ["it", "it", "brief"]
    for template in (USER + TEXT, USER + TEXT + f"{{{{ {name} is defined }}}}", None):
        with pytest.raises(PromptError, match="thinking=True sets the chat template's own switch"):
            encoder(template=template)(ask("is it"), Prompt("{question}", thinking=True))


@pytest.mark.parametrize(
    ("family", "token"),
    [("gemma3", "<image_soft_token>"), ("mistral3", "[IMG_END]"), ("qwen2_vl", "<|vision_end|>")],
)
def test_tokens_of_images_are_special_too(family, token):
    with pytest.raises(PromptError, match="reads as a special token and not as words"):
        encoder(family)(ask(f"is {token} there"), Prompt("{question}"))


def test_special_tokens_of_a_prompts_own_are_left_alone():
    assert encoder()(ask("is it"), Prompt("{question} </s>")).prompts[0].count("</s>") == 1
    assert encoder()(ask("</s>"), GENERIC_PROMPT).tokens[0].spans == {}


USER = "{% for m in messages if m['role'] == 'user' %}{% for c in m['content'] %}"
TEXT = "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize("system", ["be brief", "user", " a ", "{x}"])
def test_a_dropped_system_message_is_refused_with_what_works(system):
    encode, prompt = encoder(template=USER + TEXT + "user : a brief"), Prompt("{question}", system=system)
    with pytest.raises(PromptError, match="the chat template leaves out the system message") as raised:
        encode(ask("is it"), prompt)
    advised = str(raised.value).split("Write it into the text: interp.")[1].split(", and leave out")[0]
    assert encode(ask("is it"), eval(advised)).prompts[0].startswith(f"<image> {system.strip()} is it")


def test_a_system_message_that_the_template_moves_is_accepted():
    moved = "{% for m in messages %}{% for c in m['content'] %}" + TEXT
    assert encoder(template=moved)(ask("is it"), Prompt("{question}", system="be brief")).prompts == (
        "be brief <image> is it ",
    )


@pytest.mark.parametrize(
    "text",
    [
        "user : is it",
        "{{ c['text'][:8] }}",
        "{{ c['text'].split('it')[1] }}",
        "{{ c['text'] | truncate(9) }}",
    ],
)
def test_a_template_that_leaves_out_text_is_refused(text):
    template = (
        USER + "{% if c['type'] == 'image' %}<image>{% else %}" + text + "{% endif %}{% endfor %}{% endfor %}"
    )
    with pytest.raises(
        PromptError, match=r"leaves out the text 'is it there \?', or part of it.*Set mllm\.processor"
    ):
        encoder(template=template)(ask("is it there ?"), Prompt("{question}"))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system role') }}", r"TemplateError: no system role"),
        ("{% for m in messages %}", r"TemplateSyntaxError in its line 1"),
        ("{{ messages[9]['content'] }}", r"UndefinedError"),
        ("{{ messages + 1 }}", r"TypeError"),
        ("{{ messages | nothing }}", r"TemplateSyntaxError|TemplateAssertionError"),
        ("{{ ''.__class__.__mro__ }}", r"SecurityError"),
        ("{# nothing #}", r"as text; it gave ''"),
        ({"tool": "x"}, r"a chat template is a text; the processor has one of those named tool"),
        (7, r"a chat template is a text; the processor has 7"),
        (
            "{% for m in messages %}{{ m['content'][-1]['text'] }}{% endfor %}",
            r"placeholder '<image>' 0× for 1 image",
        ),
    ],
)
def test_a_template_that_fails_says_how(template, message):
    with pytest.raises(PromptError, match=message):
        encoder(template=template)(ask("is it"), Prompt("{question}"))


def test_a_refused_system_role_says_where_else_to_write_it():
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    encode = encoder(template=refusing + USER + TEXT)
    assert encode(ask("is it"), Prompt("{question}")).prompts == ("<image> is it ",)
    with pytest.raises(
        PromptError, match=r"System role not supported\)\. If it takes no system message, write it into"
    ):
        encode(ask("is it"), Prompt("{question}", system="be brief"))


@pytest.mark.parametrize("given", [None, b"user <image> is it", ["user <image> is it"], 3])
def test_what_is_no_text_is_refused(given, monkeypatch):
    encode = encoder()
    monkeypatch.setattr(type(encode.processor), "apply_chat_template", lambda *a, **k: given)
    with pytest.raises(PromptError, match=r"should give the prompt of sample .* as text; it gave"):
        encode(ask("is it"), Prompt("{question}"))


def test_a_default_among_several_templates_is_used():
    encode = encoder(template={"default": USER + TEXT, "tool": "x"})
    assert encode(ask("is it"), Prompt("{question}")).prompts == ("<image> is it ",)


def test_a_text_that_is_no_unicode_is_refused():
    for make in (lambda: Prompt("\ud800"), lambda: Prompt(system="\udcff")):
        with pytest.raises(PromptError, match=r"holds the lone surrogate .* neither stored nor tokenised"):
            make()


MESSAGES = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "is it? " * 900}]}]


def rendered(template: str) -> str:
    return render_jinja_template(
        conversations=[MESSAGES], chat_template=template, add_generation_prompt=True
    )[0][0]


GOOD = (
    TEMPLATE,
    "{% macro part(c) %}{{ c['text'] | trim | upper }}{% endmacro %}{% for m in messages %}{{ loop.index }}"
    "{% for c in m['content'] if c['type'] == 'text' %}{{ part(c) ~ '|' ~ loop.first }}{% endfor %}{% endfor %}",
    "{% set ns = namespace(n=0, s='') %}{% for i in range(1000) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n * 2 }}"
    "{{ '-' * 40 }}{{ messages | tojson(indent=2) }}{{ '%05d: %s' | format(7, 'x') }}{{ '{:>9}'.format('y') }}",
    "{{ messages | map(attribute='role') | join(', ') }}{{ 'abc'.replace('b', 'x').center(20) }}{{ 7 % 4 }}{{ 2 ** 9 }}"
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
)


@pytest.mark.parametrize("template", GOOD)
def test_ordinary_templates_are_as_in_transformers(template):
    expected = rendered(template)
    with bounded():
        assert rendered(template) == expected
    assert rendered(template) == expected


def test_limits_end_with_the_block():
    before = chat_template_utils._compile_jinja_template
    with pytest.raises(SecurityError), bounded():
        rendered("{{ 'x' * 2000000 }}")
    assert chat_template_utils._compile_jinja_template is before
    assert len(rendered("{{ 'x' * 2000000 }}")) == 2_000_000


LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}"
NS = "{% set ns = namespace(x='ab', n=2) %}{% for i in range(60) %}"


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ 'x' * 10 ** 9 }}",
        "{{ 10 ** 9 * 'x' }}",
        "{{ ([0] * 10 ** 9) | length }}",
        LOOPS + "{% endfor %}{% endfor %}",
        "{% set a %}" + LOOPS + "xxxxxxxx{% endfor %}{% endfor %}{% endset %}",
        NS + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        NS + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
        NS + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        NS + "{% set ns.n = ns.n * ns.n %}{% endfor %}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%01000000000d' | format(1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{w}}'.format(1, w='1000000000') }}",
        "{{ 'x'.center(10 ** 9) }}",
        "{{ 'x' | center(10 ** 9) }}",
        "{{ messages | tojson(indent=10 ** 9) }}",
        "{{ ('x' * 9999).replace('x', 'y' * 99999) }}",
        "{{ range(9999) | map('string') | join('x' * 99999) }}",
        "{{ ' '.join(['x' * 99999] * 9999) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% set x = 'x' * 999999 %}{% for i in range(99) %}{{ x }}{% endfor %}",
    ],
)
def test_bombs_are_refused_before_they_take_memory(bomb):
    with (
        pytest.raises(SecurityError, match=r"it (makes a value|takes|formats a text).* more than"),
        bounded(),
    ):
        rendered(bomb)


def test_a_template_cannot_replace_the_count():
    shadowed = "{% set step = dict %}{% set environment = 3 %}" + LOOPS + "{% endfor %}{% endfor %}"
    with pytest.raises(SecurityError, match="20,000 steps"), bounded():
        rendered(shadowed)
