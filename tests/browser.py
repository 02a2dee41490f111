"""A real browser for tests of pages: Debian's chromium, driven by Playwright, whose own browsers are not downloaded."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), None)
MISSING = [
    *(() if CHROMIUM else (f"a browser ({', '.join(NAMES)})",)),
    *(() if importlib.util.find_spec("playwright") else ("playwright",)),
]
needs_browser = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {' and '.join(MISSING)}")


@contextmanager
def opened_browser() -> Iterator[Any]:
    """A browser; it must be closed before other tests run, because Playwright holds an event loop."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page in a context of its own, with nothing stored; what the page complains about is kept in `complaints`."""

    def __init__(self, browser: Any, url: str, width: int = 1280, height: int = 900) -> None:
        self.complaints: list[str] = []
        self.context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        self.context.set_default_timeout(5000)
        self.page = self.context.new_page()
        self.page.on("console", lambda said: self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._no_network)
        self.page.on("dialog", lambda dialog: dialog.accept())
        self.page.goto(url)

    def _no_network(self, request: Any) -> None:
        if request.url.split(":")[0] not in ("file", "data", "blob"):
            self.complaints.append(f"asked for {request.url}")

    def press(self, keys: str) -> None:
        """Presses keys one after another; words in brackets are one key: "4[Escape]n"."""
        names = keys.replace("[", " [").replace("]", "] ").split()
        for name in names:
            for key in [name[1:-1]] if name.startswith("[") else name:
                self.page.keyboard.press(key)

    def save(self, path: Any) -> None:
        """Saves the answers as the person would."""
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name="Save answers to a file").click()
        download.value.save_as(path)

    def status(self) -> str:
        """What the page says to everyone, screen readers included."""
        return self.page.get_by_role("status").inner_text()

    def close(self) -> None:
        """Closes the page and forgets what it stored."""
        self.context.close()
