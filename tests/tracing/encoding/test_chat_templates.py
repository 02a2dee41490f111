"""Chat templates run within limits, and otherwise as transformers runs them."""

from __future__ import annotations

import pytest
from jinja2.exceptions import SecurityError
from transformers.utils import chat_template_utils
from transformers.utils.chat_template_utils import render_jinja_template

from interp.tracing.encoding.rendering import bounded
from tests.tiny import TEMPLATE

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
