"""A page is one file whose text cannot become markup."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path

import plotly.graph_objects as go
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from interp.errors import RunError
from interp.report.figures import laid_out, panels
from interp.report.html import (
    Cell,
    Row,
    _drawn,
    _environment,
    bold,
    card,
    definitions,
    details,
    element,
    figure_card,
    figure_cards,
    grid,
    heading,
    headline,
    join,
    key,
    paragraph,
    save_page,
    section,
    span,
    table,
    tip,
    written_by,
)  # fmt: skip

ATTACK = "<script>x</script>"
PARTS = {
    "bold": bold(ATTACK),
    "card": card(ATTACK, title=ATTACK),
    "cell": table([ATTACK], [[ATTACK], [Cell(ATTACK, kind=ATTACK)]], kind=ATTACK),
    "definitions": definitions({ATTACK: ATTACK}),
    "details": details(ATTACK, ATTACK),
    "join": join(ATTACK, ATTACK),
    "paragraph": paragraph(ATTACK, kind=ATTACK),
    "section": section(ATTACK, ATTACK, intro=ATTACK),
}


@pytest.mark.parametrize("part", PARTS)
def test_text_stays_text_in_every_part(part: str) -> None:
    assert "<script" not in PARTS[part]
    assert "&lt;script&gt;x" in PARTS[part]


def test_markup_inside_a_part_is_kept_once() -> None:
    assert paragraph("a < ", bold("b & c")) == "<p>a &lt; <b>b &amp; c</b></p>"


def test_what_holds_nothing_is_left_out() -> None:
    assert section("title", "", join(), intro="how to read it") == ""
    assert details("summary", "") == ""
    assert grid([]) == ""


def test_a_table_has_heads_rows_classes_and_spans() -> None:
    rows = [Row([Cell("all", span=2)], "chosen"), ["x", None]]
    assert str(table(["name", "value"], rows)) == (
        '<div class="scroll"><table><thead><tr><th scope="col">name</th><th scope="col">value</th></tr></thead>'
        '<tbody><tr class="chosen"><td colspan="2">all</td></tr><tr><td>x</td><td>–</td></tr></tbody></table></div>'
    )


def test_columns_of_text_are_told_from_columns_of_numbers() -> None:
    rows = [
        ["a", "last token", "−0.12 [−0.20, 0.01]", Cell("other samples, same groups", "own")],
        ["b", bold("image"), None, "–"],
        Row([Cell("all", span=4)]),
    ]
    found = str(table(["", "rows of", "gap", "from"], rows))
    kinds = re.findall(r"<t[hd](?: scope=\"col\")?(?: class=\"(.*?)\")?[ >]", found)
    heads, first, second = kinds[:4], kinds[4:8], kinds[8:12]
    assert heads == second == ["", "words", "", "words long"]
    assert first == ["", "words", "", "own words long"]
    assert kinds[12:] == [""]


def test_a_wide_table_of_texts_knows_the_column_of_each_entry() -> None:
    found = str(table(["name", bold("what <it> is"), "why"], [["a", "b", "c"]], "text"))
    assert '<table class="text parts">' in found
    assert re.findall(r'data-column="(.*?)"', found) == ["name", "what &lt;it&gt; is", "why"]
    narrow = table(["name", "what"], [["a", "b"]], "text")
    assert "data-column" not in narrow
    assert '<table class="text">' in narrow


def test_a_page_is_whole_and_its_text_cannot_become_markup(tmp_path: Path) -> None:
    figure = go.Figure(go.Scatter(x=[1], y=[2], name="</script><b>"))
    path = save_page(
        tmp_path / "new" / "page.html",
        title="A <b>title</b>",
        question="Does <i>it</i> hold?",
        lead=Markup("<p>lead</p>"),
        body=[grid([figure_card("one")]), table(["a", "b"], [["<u>", "2"]])],
        figures={"one": figure},
    )
    page = path.read_text()
    own = page[page.index("<main") : page.index('id="plotly"')]
    assert "{{" not in re.sub(r"<script.*?</script>", "", own, flags=re.S)
    assert "<i>it" not in own
    assert "&lt;i&gt;it" in own
    assert "<td>&lt;u&gt;</td>" in own
    assert "<p>lead</p>" in own
    assert 'id="figure-one"' in own
    assert not re.search(r"(src|href)=.?https?:", own)
    found = re.search(r'id="figures">(.*?)</script>', own, flags=re.S)
    assert found is not None
    assert json.loads(found.group(1))["figure-one"]["data"][0]["name"] == "</script><b>"


def test_a_page_without_figures_still_has_what_its_script_reads(tmp_path: Path) -> None:
    lead = Markup("")
    page = save_page(tmp_path / "page.html", title="t", question="q", lead=lead, body=[]).read_text()
    assert '<script type="application/json" id="figures">{}</script>' in page


def test_a_template_refuses_a_name_it_was_not_given() -> None:
    with pytest.raises(UndefinedError, match="is undefined"):
        _environment().get_template("page.html").render(title="t")


def test_a_head_of_several_rows_names_groups_of_columns() -> None:
    heads = [Row(["", Cell("both", span=2)]), Row(["name", "low", "high"])]
    found = str(table(heads, [["x", 1, 2]]))
    above = '<th scope="col"></th><th scope="colgroup" colspan="2">both</th>'
    below = '<th scope="col">name</th><th scope="col">low</th><th scope="col">high</th>'
    assert f"<thead><tr>{above}</tr><tr>{below}</tr></thead>" in found
    assert re.findall('data-column="(.*?)"', table(heads, [["x", 1, 2]], "text")) == ["name", "low", "high"]
    assert "<thead>" not in table([], [["x", 1]])


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        (["a", "1"], ""),  # half of them are numbers
        (["a", "1", "b"], "words"),
        (["a", "", "–", "1"], ""),  # what is empty counts for nothing
        (["", "–"], ""),
        ([" ", " ", "1"], ""),
        (["x" * 24], "words"),
        (["a", "x" * 25], "words long"),
        (["[0.1, 0.2]", "< 0.001", "≥ 3", "−2 %", ".5", "≈ +1"], ""),
        (["x1"], "words"),
    ],
)
def test_a_column_is_words_where_fewer_than_half_are_numbers(entries: list[str], kind: str) -> None:
    found = str(table([], [["x", one] for one in entries]))
    assert set(re.findall(r'<td>x</td><td(?: class="(.*?)")?>', found)) == {kind}


def test_parts_have_the_kind_and_the_title_they_are_given() -> None:
    assert card("x") == '<div class="card">x</div>'
    assert card("x", title="t", kind="wide") == '<div class="card wide"><h3>t</h3>x</div>'
    assert grid(["x", ""], "top") == '<div class="grid top">x</div>'
    assert grid(["x"]) == '<div class="grid">x</div>'
    assert details("s", "x") == "<details><summary>s</summary>x</details>"
    assert details("s", "x", opened=True) == "<details open><summary>s</summary>x</details>"
    assert section("t", "x") == "<h2>t</h2>x"
    assert section("t", "x", intro="i") == '<h2>t</h2><p class="soft wide">i</p>x'
    assert figure_cards(["a", "b"]).count('<div class="card"><div class="figure" id="figure-') == 2
    assert '<div class="grid wide">' in figure_cards(["a"], "wide")
    assert figure_card("a", "t") == (
        '<div class="card"><h3>t</h3><div class="figure" id="figure-a"></div></div>'
    )
    assert (heading("t", level=4), bold("x", kind="k")) == ("<h4>t</h4>", '<b class="k">x</b>')
    assert (span("x"), span("x", kind="k")) == ('<span class="soft">x</span>', '<span class="k">x</span>')
    assert headline("3", "of") == '<div class="number"><b>3</b> <span class="soft">of</span></div>'


def test_a_word_says_more_on_hovering() -> None:
    assert tip("a", '"b"', kind="c") == '<span class="c" title="&#34;b&#34;">a</span>'


def test_a_key_is_a_square_of_its_colour() -> None:
    assert key("#0072B2") == '<span class="key" style="background:#0072B2"></span>'


def test_a_page_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"expected path to end in \.html or \.htm"):
        save_page(tmp_path / "page.png", title="t", question="q", lead=Markup(""), body=[])
    assert list(tmp_path.iterdir()) == []


def test_only_what_changes_on_a_narrow_screen_is_stored_twice() -> None:
    one = laid_out(go.Figure(go.Scatter(x=[1], y=[2])), 300)
    assert "narrow" not in _drawn(one)["layout"].get("meta", {})
    several = panels(["a", "b"])
    for column in (1, 2):
        several.add_trace(go.Scatter(x=[1], y=[2]), row=1, col=column)
    layout = _drawn(laid_out(several, 300, columns=2))["layout"]
    narrow = layout["meta"]["narrow"]
    assert narrow["xaxis2"]["domain"] == [0.0, 1.0]
    assert narrow["height"] != layout["height"]
    assert "template" not in narrow


def test_a_page_carries_plotly_only_for_figures(tmp_path: Path) -> None:
    sizes = []
    for figures in ({}, {"one": go.Figure()}):
        page = save_page(
            tmp_path / "page.htm", title="t", question="q", lead=Markup(""), body=[], figures=figures
        )
        sizes.append(page.stat().st_size)
    assert sizes[0] < 10**6 < sizes[1]


def test_an_element_escapes_what_it_holds_and_its_attributes() -> None:
    shown = element("p", "a < b", Markup("<i>c</i>"), None, kind='x"', data_id="&", hidden=None, open=True)
    assert shown == '<p class="x&#34;" data-id="&amp;" open>a &lt; b<i>c</i>–</p>'


def test_a_page_says_which_version_wrote_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", {"interp": "7.8.9"}.__getitem__)
    page = save_page(tmp_path / "page.html", title="t\udcff", question="q", lead=Markup(""), body=[])
    said = page.read_text()
    assert "7.8.9" in said
    assert "t\\udcff" in said  # what no file can hold is written as its code

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert written_by() == "(source)"
