from __future__ import annotations

import threading
from pathlib import Path

import pytest

import interp
from interp.conformance.tiny import tiny
from interp.data import Samples
from tests.run.run_fingerprints import fingerprints


@pytest.fixture(scope="module")
def mllm() -> interp.Mllm:
    return interp.wrap(*tiny("llava"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Scenes with two questions each, one sample whose image is no image, and one that stands for a bad row."""
    scenes = list(interp.data.bundled("natural", n=5))
    broken = tmp_path_factory.mktemp("images") / "broken.png"
    scenes[0].load().save(broken)
    broken.write_bytes(broken.read_bytes()[:600])
    again = [one.replace(question="What do you see there?", id=f"{one.id} again") for one in scenes]
    bad = interp.Sample(broken, "What is it?", boxes=[(1, 1, 9, 9)], group="broken", id="broken")
    return Samples([*scenes, *again, bad, interp.Sample.unusable("no such row", id="absent")], "mixed")


def sweep(mllm: interp.Mllm, data: Samples, out: Path, loaders: int) -> dict[str, str]:
    """The bytes of a sweep's files."""
    study = interp.LayerSweep(model=mllm, data=data, batch=2)
    result = study.run(out, progress=False, loaders=loaders)
    assert len(result.failures) == 2
    return fingerprints(out)


@pytest.mark.parametrize("loaders", [1, 2])
def test_loaders_change_no_byte_of_a_sweep(
    mllm: interp.Mllm, data: Samples, tmp_path: Path, loaders: int
) -> None:
    plain = sweep(mllm, data, tmp_path / "plain", 0)
    assert sweep(mllm, data, tmp_path / "ahead", loaders) == plain
    assert not mllm.installation.processed.ready


def test_the_processor_runs_in_the_loaders(
    mllm: interp.Mllm, data: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    kind = type(mllm.processor)
    call = kind.__call__

    def noting(self: object, *arguments: object, **options: object) -> object:
        seen.append((threading.current_thread().name, id(self)))
        return call(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "__call__", noting)
    mllm.installation.processed.forget_but(0)
    sweep(mllm, data, tmp_path, 1)
    assert len(seen) == 5  # once for each image
    assert all(name.startswith("interp-loader") for name, _ in seen)
    assert id(mllm.processor) not in {one for _, one in seen}
