"""The rating page and the reader study's page in a real browser: keys, mouse, reload, files, and what comes out."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interp.curation import curate, rating_page, read_ratings
from interp.data import Samples
from interp.reader_study import Key, read_key, read_study, write_pack
from tests.browser import Tab, needs_browser, opened_browser
from tests.curation.rated import to_rate
from tests.reader_study.cases import cases, maps
from tests.report.hostile_samples import ATTACK

pytestmark = needs_browser
SCALES = ("Clinical relevance", "Visual grounding", "Minimum semantic grounding")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened_browser() as found:
        yield found


@pytest.fixture(scope="module")
def samples() -> Samples:
    """Four samples; the third one's texts try to be markup."""
    found = list(to_rate())
    return Samples([*found[:2], found[2].replace(question=ATTACK, answer=ATTACK), found[3]], "to rate")


@pytest.fixture(scope="module")
def rating_url(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> str:
    return rating_page(samples, tmp_path_factory.mktemp("rating") / "rate.html").as_uri()


@pytest.fixture
def tab(browser: Any, rating_url: str) -> Iterator[Tab]:
    found = Tab(browser, rating_url)
    yield found
    found.close()
    assert found.complaints == []


def chosen(tab: Tab) -> list[str]:
    """The chosen options of the item that is shown, by their accessible names."""
    labels = tab.page.locator("label:has(input[type=radio]:checked)").all_inner_texts()
    return [" ".join(label.split()) for label in labels]


def place(tab: Tab) -> str:
    return tab.page.get_by_role("heading", level=2).inner_text()


def test_a_sample_is_rated_edited_and_saved_by_keys_alone(tab: Tab, samples: Samples, tmp_path: Path) -> None:
    page = tab.page
    page.get_by_label("Your name or code").fill("Dr. Ana")
    tab.press("[Escape]4")
    assert tab.status() == "Clinical relevance: 4"
    tab.press("53n")
    assert place(tab) == "Sample 2 of 4"
    tab.press("e")
    page.keyboard.press("End")
    page.keyboard.type(" Really? 15n")  # digits and letters in a text field are text
    tab.press("[Escape]555")
    assert page.get_by_text("2 of 4 finished").is_visible()
    assert page.get_by_role("progressbar").evaluate("node => node.value") == 2
    tab.press("pn")  # away and back
    assert page.get_by_role("textbox", name="Question").input_value() == "Is organ 1 visible? Really? 15n"
    tab.press("u")
    assert place(tab) == "Sample 3 of 4"
    page.reload()
    assert tab.status() == "2 samples with answers were found in this browser."
    assert place(tab) == "Sample 3 of 4"
    assert page.get_by_role("textbox", name="Question").input_value() == ATTACK
    tab.press("p")
    assert chosen(tab) == [
        "5 well phrased, and directly supports reasoning",
        "5 exactly the box",
        "5 basic recognition",
    ]
    tab.save(tmp_path / "ana.json")
    assert tab.status() == "Saved. 2 samples are not finished."
    found = read_ratings([tmp_path / "ana.json"], samples)
    assert found.raters == ("Dr. Ana",)
    assert found.scores(0) == {"Dr. Ana": {"relevance": 4, "grounding": 5, "semantics": 3}}
    assert found.edited(1) == {"Dr. Ana": "Is organ 1 visible? Really? 15n"}
    assert curate(found).decisions.decision.tolist() == ["kept", "kept", "unrated", "unrated"]


def test_a_saved_file_is_loaded_elsewhere_and_goes_on(
    tab: Tab, browser: Any, rating_url: str, tmp_path: Path
) -> None:
    page = tab.page
    page.get_by_label("Your name or code").fill("Ben")
    for scale, name in zip(SCALES, ("3", "4", "2 a named disease"), strict=True):
        page.get_by_role("group", name=scale).get_by_role("radio", name=name, exact=True).check()
    page.get_by_label("Comment").fill("“blurred”\n<b>")
    tab.save(tmp_path / "ben.json")
    other = Tab(browser, rating_url, width=390, height=844)
    assert other.page.get_by_text("0 of 4 finished").is_visible()
    other.page.get_by_label("File of answers").set_input_files(tmp_path / "ben.json")
    other.page.get_by_text("Loaded the answers of Ben: 1 sample.").wait_for()
    assert chosen(other) == ["3", "4", "2 a named disease"]
    assert other.page.get_by_label("Comment").input_value() == "“blurred”\n<b>"
    other.press("n111")
    other.save(tmp_path / "more.json")
    first, more = (json.loads((tmp_path / name).read_text()) for name in ("ben.json", "more.json"))
    assert more["answers"][0] == first["answers"][0]
    assert more["answers"][1]["values"] == {"relevance": 1, "grounding": 1, "semantics": 1}
    other.close()
    assert other.complaints == []


WRONG: list[tuple[dict[str, Any] | None, str]] = [
    ({"form": "x"}, "it answers another page"),
    ({"format": "interp reader study"}, "it does not hold answers to such a page"),
    ({"answers": [{"item": "0", "values": {"relevance": 9}}]}, "item 1 has a value that is not on the scale"),
    ({"answers": [{"item": "9", "values": {}}]}, "an answer is to no item of this page"),
    (None, "The file was not loaded"),
]


def test_files_that_do_not_fit_change_nothing(tab: Tab, tmp_path: Path) -> None:
    tab.press("5")
    tab.page.get_by_label("Your name or code").fill("Cem")
    tab.save(tmp_path / "cem.json")
    record = json.loads((tmp_path / "cem.json").read_text())
    for change, message in WRONG:
        (tmp_path / "wrong.json").write_text("{" if change is None else json.dumps(record | change))
        tab.page.get_by_label("File of answers").set_input_files(tmp_path / "wrong.json")
        tab.page.get_by_text(message).wait_for()
        assert chosen(tab) == ["5 well phrased, and directly supports reasoning"]


def test_a_file_needs_a_name_and_shortcuts_can_be_turned_off(tab: Tab) -> None:
    tab.page.get_by_role("button", name="Save answers to a file").click()
    assert tab.status().startswith("Enter your name or code first")
    assert tab.page.get_by_label("Your name or code").evaluate("node => node === document.activeElement")
    tab.page.get_by_label("Single-key shortcuts").uncheck()
    tab.page.get_by_label("Single-key shortcuts").blur()
    tab.press("5n")
    assert (place(tab), chosen(tab)) == ("Sample 1 of 4", [])


def test_an_edit_taken_back_is_no_edit(tab: Tab, tmp_path: Path) -> None:
    question = tab.page.get_by_role("textbox", name="Question")
    restore = tab.page.get_by_role("button", name="Restore the original")
    assert restore.is_hidden()
    question.fill("Other?")
    restore.click()
    assert question.input_value() == "Is organ 0 visible?"
    question.fill("   ")
    tab.page.get_by_label("Your name or code").fill("Dee")
    tab.save(tmp_path / "dee.json")
    assert json.loads((tmp_path / "dee.json").read_text())["answers"] == []


@pytest.mark.parametrize("width", [390, 1280])
def test_every_control_is_named_and_nothing_overflows(browser: Any, rating_url: str, width: int) -> None:
    tab = Tab(browser, rating_url, width=width)
    page = tab.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    nameless = page.locator("button, input, select, textarea").evaluate_all(
        "all => all.filter(one => !(one.labels?.length || one.ariaLabel || one.textContent.trim()))"
        ".map(one => one.outerHTML)"
    )
    assert nameless == []
    assert page.get_by_role("radio").count() == 15
    assert [page.get_by_role("group", name=scale).count() for scale in SCALES] == [1, 1, 1]
    assert page.get_by_role("img").first.get_attribute("alt") == "Image with 1 box"
    image = page.get_by_role("img").first.bounding_box()
    assert image["width"] / image["height"] == pytest.approx(4 / 3, rel=0.05)
    tab.close()
    assert tab.complaints == []


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Key]:
    """The page of 4 cases, one of them shown twice, and its key."""
    folder = tmp_path_factory.mktemp("pack")
    found = {"old": maps(4, 1), "new": maps(4, 2, power=6.0)}
    write_pack(
        cases(4),
        found,
        page=folder / "page.html",
        key=folder / "key.json",
        n_duplicates=1,
        ties=True,
        seed=5,
        side=96,
    )
    return folder / "page.html", read_key(folder / "key.json")


@pytest.mark.parametrize("width", [390, 1280])
def test_readers_choose_by_keys_and_the_key_tells_what(
    browser: Any, pack: tuple[Path, Key], width: int, tmp_path: Path
) -> None:
    page, key = pack
    tab = Tab(browser, page.as_uri(), width=width)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    alts = [one.get_attribute("alt") for one in tab.page.get_by_role("img").all()]
    assert alts == ["The image alone", "The image with map A over it", "The image with map B over it"]
    for one in key.items[:-1]:
        tab.press(("a" if one.a == "new" else "b") + "n")
    tab.press("t")
    assert tab.status() == "Chosen: Neither is better"
    tab.page.reload()
    assert tab.page.get_by_text("5 of 5 finished").is_visible()
    tab.page.get_by_label("Your name or code").fill("Reader 1")
    tab.save(tmp_path / "one.json")
    assert tab.status() == "Saved. Every case is finished."
    tab.close()
    assert tab.complaints == []
    result = read_study(key, [tmp_path / "one.json"])
    first = result.first.set_index("item").choice.to_dict()
    expected = {one.item: "new" for one in key.items if one.duplicate_of is None}
    if key.items[-1].duplicate_of is None:
        expected[key.items[-1].item] = "tie"
    assert first == expected


def test_each_view_is_its_third_of_the_picture(browser: Any, pack: tuple[Path, Key]) -> None:
    """The page cuts one picture into three: image, map A, map B, side by side in the PNG."""
    tab = Tab(browser, pack[0].as_uri())
    images = tab.page.get_by_role("img").all()
    shots = [Image.open(BytesIO(one.screenshot())).convert("RGB").resize((32, 24)) for one in images]
    source = images[0].get_attribute("src")
    tab.close()
    whole = Image.open(BytesIO(base64.b64decode(source.partition(",")[2])))
    third = whole.width // 3
    for i, shot in enumerate(shots):
        part = whole.crop((i * third, 0, (i + 1) * third, whole.height)).resize((32, 24))
        inner = (slice(2, -2), slice(2, -2))  # corners are round
        gaps = np.abs(np.asarray(shot, float)[inner] - np.asarray(part, float)[inner])
        assert gaps.mean() < 6
