"""What the README counts and shows is what the package has and does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from interp.conformance.tiny import families
from interp.models.adapter import BUILT_IN
from interp.tracing.lens import SUPPORTED

TEXT = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def counted(pattern: str) -> int:
    found = re.search(pattern, " ".join(TEXT.split()))
    assert found is not None, pattern
    return int(found[1])


def test_families_are_counted_as_the_registry_has_them():
    assert counted(r"\*\*Models:\*\* (\d+) families") == len(BUILT_IN)
    assert counted(r"leaves the model as it is: (\d+) families") == len(SUPPORTED)


def test_every_family_is_named():
    listed = TEXT.split("**Models:**")[1].split("The paper's medical models")[0]
    plain = re.sub(r"[^a-z0-9]", "", listed.lower())
    assert [name for name in families() if re.sub(r"[^a-z0-9]", "", name) not in plain] == []


def test_the_examples_do_what_they_say(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    for code, shown in ((first, r"# (\w+)$"), (second, r'"(\w+)"$')):
        said = re.search(shown, code.strip())
        assert said is not None
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
        assert capsys.readouterr().out.strip(" []'\n") == said[1]
    assert (tmp_path / "look.html").is_file()


def test_git_ignores_what_commands_write_and_nothing_of_ours():
    root = Path(__file__).parents[1]

    def git(*words: str) -> list[str]:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.split()

    if not git("rev-parse", "--git-dir"):
        pytest.skip("this is no checkout of git")
    written = ["look.html", "data_check.html", "sweep.html", "runs/fig3.html"]
    assert git("check-ignore", *written) == written
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []
