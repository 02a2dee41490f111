"""The explorer driven as a person would, in a real browser."""

from __future__ import annotations

import pytest

import interp
from tests.browser import needs_browser, opened_browser

pytest.importorskip("dash")
pytestmark = needs_browser
WAIT = 60_000


@pytest.fixture(scope="module")
def explorer():
    from interp.explore.local_server import Server

    sample = interp.data.bundled("natural", n=1)[0]
    with (
        Server(interp.load("organism"), sample, model={"model": "organism"}, generate=3) as server,
        opened_browser() as browser,
    ):
        yield server, browser, sample


@pytest.fixture
def opened(explorer):
    server, browser, _ = explorer
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(WAIT)
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(server.url)
    page.wait_for_function(
        "document.querySelector('#about')?.innerText.includes('of the row is on the image')"
    )
    page.locator("#map .imagelayer image").wait_for()
    yield page
    assert complaints == []
    assert [url for url in asked if not url.startswith((server.url, "data:", "blob:"))] == []
    context.close()


def code_of(page, holds):
    page.wait_for_function("text => document.querySelector('#code').innerText.includes(text)", arg=holds)
    return page.locator("#code").inner_text()


def test_tokens_are_clicked_and_an_edit_is_run(opened, explorer):
    _, _, sample = explorer
    page = opened
    answer = interp.load("organism").answers([sample])[0]
    assert f"“{answer}”" in page.locator("#answer").inner_text()
    canvas = page.locator("#map .nsewdrag").first
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    page.wait_for_function("document.querySelector('#tokens').innerText.includes('1 chosen')")
    page.locator("#map .shapelayer path").first.wait_for(state="attached")  # the figure is drawn anew
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + box["height"] - 5, steps=5)
    page.mouse.up()
    page.wait_for_function("document.querySelector('#tokens').innerText.includes('144 chosen')")
    page.get_by_role("button", name="Run the edit").click()
    page.wait_for_function("document.querySelector('#effect').innerText.includes('after the edit')")
    edit = interp.Knockout(interp.Site(queries="last", keys="image"), steps="all")
    changed = interp.load("organism").answers([sample], edits=[edit])[0]
    assert changed != answer
    assert f"“{changed}”" in page.locator("#effect").inner_text()
    assert "edit = interp.Knockout(site" in code_of(page, "interp.Knockout")
    page.get_by_role("button", name="Clear selection").click()
    page.wait_for_function("document.querySelector('#tokens').innerText.includes('all image tokens')")


def test_a_head_is_clicked_and_chosen_for_an_edit(opened):
    page = opened
    page.locator("#heads .nsewdrag").first.click()
    code = code_of(page, "row.sel(head=")
    page.get_by_role("button", name="Add the head shown").click()
    layer = code.split("sel(layer=")[1].split(")")[0]
    head = code.split("sel(head=")[1].split(")")[0]
    page.get_by_role("button", name="Run the edit").click()
    assert f"heads=[({layer}, {head})]" in code_of(page, "heads=[")


def test_an_image_is_uploaded_and_asked_about(opened, tmp_path):
    page = opened
    other = interp.data.bundled("natural", n=2)[1]
    other.load().save(tmp_path / "mine.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    page.locator("#upload input").set_input_files(tmp_path / "broken.png")
    page.wait_for_function(
        "document.querySelector('#names').innerText.includes('cannot be read as an image')"
    )
    page.locator("#upload input").set_input_files(tmp_path / "mine.png")
    page.wait_for_function("document.querySelector('#names').innerText === 'mine.png'")
    page.locator("#question").fill("")
    page.get_by_role("button", name="Ask").click()
    page.wait_for_function("document.querySelector('#message').innerText.includes('question')")
    page.locator("#question").fill(other.question + " <b>")
    page.get_by_role("button", name="Ask").click()
    code = code_of(page, "'mine.png'")
    assert "<b>" in code


def test_other_hosts_names_are_refused(explorer):
    server, browser, _ = explorer
    context = browser.new_context()
    answer = context.request.get(server.url, headers={"Host": "evil.example"})
    assert answer.status == 403
    assert "answers under" in answer.text()
    context.close()


def test_a_port_that_is_taken_is_refused(explorer):
    from interp.errors import RunError
    from interp.explore.local_server import Server

    server, _, _ = explorer
    port = int(server.url.rsplit(":", 1)[1].strip("/"))
    with pytest.raises(RunError, match="Choose another port"):
        Server(interp.load("organism"), port=port)
