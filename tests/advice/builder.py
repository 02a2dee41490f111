# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of `interp.data_build`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from interp import data_build
from interp.data import Samples
from interp.inputs.sample import Sample
from tests.data_build.build_files import picture_folder

ROWS: list[tuple[str, str, str]] = [
    ("data_build.Settings(localization=('identity',))", "Pass complete=True", "data_build.Settings(localization=('identity',), complete=True)"),
    ("data_build.Settings(localization=('identity',))", 'add "presence" to localization', "data_build.Settings(localization=('identity', 'presence'))"),
    ("data_build.build(speck(), empty())", "Settings(share=…, area=…)", "data_build.build(speck(), empty(), data_build.Settings(area=(0.0, 1.0)))"),
    ("data_build.build(speck(), filled())", "Choose an empty folder as out", "data_build.build(speck(), empty(), data_build.Settings(area=(0.0, 1.0)))"),
    ("data_build.Endpoint('x', 'm')", "'http://localhost:8000/v1'", "data_build.Endpoint('http://localhost:8000/v1', 'm')"),
    ("data_build.scans(empty())", "interp.data.nifti(image, labels, masks=True)", "data.nifti(*volumes(), masks=True)"),
    ("data_build.scans(misnamed())", "Name the labels with names=", "data_build.scans(misnamed(), names={255: 'polyp'})"),
]  # fmt: skip
"""(a call that fails, words of its message, a call that follows them)"""

COMMAND = "tests/data_build/test_build_command.py::test_options_that_do_not_go_together_are_refused"
ELSEWHERE: dict[str, str] = {
    "the endpoint {…} failed for": "tests/data_build/test_endpoint.py::test_a_dead_server_ends_the_build_and_keeps_answers",
    "has no image: expected": "tests/data_build/test_pipeline.py::test_a_label_map_without_its_image_is_named",
    "--endpoint URL and --llm NAME go together": COMMAND,
    "--names is JSON": COMMAND,
    "--{…} is for volumes and label maps": COMMAND,
}  # the beginning of a message: the test that makes it appear


def empty() -> Path:
    """A new folder."""
    return Path(tempfile.mkdtemp())


def filled() -> Path:
    """A folder with a file that no build wrote."""
    folder = empty()
    (folder / "notes.txt").write_text("x")
    return folder


def misnamed() -> Path:
    """A folder of pictures whose labels.json names no value."""
    folder = picture_folder(empty() / "in")
    (folder / "labels.json").write_text('{"a": "b"}')
    return folder


def speck() -> Samples:
    """A sample whose box is too small to be asked about."""
    return Samples([Sample(np.zeros((100, 100), np.uint8), "?", [(3, 3, 8, 8)], meta={"label": "polyp"})])


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    return {
        **{helper.__name__: helper for helper in (empty, filled, misnamed, speck)},
        "data_build": data_build,
    }
