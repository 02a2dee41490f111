# ruff: noqa: E501 - a row of a table is a line
"""Advice of refusals that once said no more than what is wrong. The calls reach this module as `rf`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import interp
from interp.conformance.tiny import tiny
from interp.data import build
from interp.data.readers.hub import checked
from interp.data.table_rows import _encoded
from interp.inputs.video import _check_frame
from interp.run import RunFolder, merge
from interp.study.size_matching import two_domains
from interp.tracing import PatchRows
from tests.advice import study as of_study
from tests.data import source_files as files
from tests.study.benchmark import planted_benchmark

DATA: list[tuple[str, str, str]] = [
    ("rf.build.box_of(np.zeros((4, 6), bool))", "Leave it out", "rf.build.box_of(np.ones((4, 6), bool))"),
    ("rf.build.mirror(TWO)", "Make one sample per image", "[rf.build.mirror(Sample(image, TWO.question)) for image in TWO.images]"),
    ("rf.checked(data.Samples([], 'mine'))", "Choose another split", "rf.checked(D)"),
    ("data.medsam(rf.medsam(np.array([{}], object)))", "numpy.savez(path, imgs=…, gts=…)", "data.medsam(rf.medsam(None))"),
    ("data.Samples(['a.png'])", "interp.Sample(image=…, question=…)", "data.Samples([interp.Sample(image='a.png', question='?')])"),
    ("data.hub(hub_data().select([]))", "Choose another split or file", "data.hub(hub_data())"),
    ("rf.encoded([{'image': None}])", "Leave the row out", "rf.encoded([{'image': {'bytes': b'x'}}])"),
    ("to_ras(GREY, np.zeros((4, 4)))", "Correct the header", "to_ras(GREY, RAS)"),
    ("cm.command('data', 'check', str(rf.without_objects()), '--reader', 'voc')", "--reader names another", "cm.command('data', 'check', 'natural', '--n', '2')"),
    ("Sample(PIC, options=['yes', 'yes'])", "Leave out those that repeat one", "Sample(PIC, options=['yes'])"),
    ("Sample('a.png', meta={'x': {1}}).to_dict()", "such as str(value)", "Sample('a.png', meta={'x': str({1})}).to_dict()"),
    ("Sample(video=vi.clip().video, fps=2, question='?')", "Leave it out", "Sample(video=vi.clip().video, question='?')"),
    ("Sample(video=vi.clip().video, fps=2, question='?')", "or pass it with the file or the frames", "Sample(video=vi.FRAMES, fps=2, question='?')"),
    ("rf.check_frame(10**5)", "-vf scale=1280:-2", "rf.check_frame(1280)"),
]  # fmt: skip
MODELS: list[tuple[str, str, str]] = [
    ("md.load(md.copied('llava', mm_use_im_start_end=True))", "Take a copy in transformers' layout", "md.loaded('llava')"),
    ("md.load(md.copied('llava', mm_use_im_start_end=True))", "use interp.wrap(hf_model, processor)", "interp.wrap(*tiny('llava'))"),
    ("interp.head_means(mllm, [one], Site(layers=[0], queries=interp.image_mask(np.zeros(16, bool))), progress=False)", "such as 'last'", "interp.head_means(mllm, [one], Site(layers=[0], queries='last'), progress=False)"),
    ("rf.asked_of(rf.grown(own=True), 'is zzz there?')", "Pass the processor of this checkpoint", "rf.asked_of(mllm, 'is zzz there?')"),
    ("rf.asked_of(rf.grown(own=True), 'is zzz there?')", "call hf_model.resize_token_embeddings(len(processor.tokenizer))", "rf.asked_of(rf.grown(own=False), 'is zzz there?')"),
    ("rf.PatchRows(SITE, tr.rows(SITE)).on(None, None)", "Pass it as edits=[…] to mllm.trace", "mllm.trace([one], edits=[rf.PatchRows(SITE, tr.rows(SITE))])"),
]  # fmt: skip
RUNS: list[tuple[str, str, str]] = [
    ("merge(parts(), rf.of_another_study(rf.merged()))", "Merge into an empty folder", "merge(parts(), new_folder())"),
    ("rf.changing(parts())", "Run that part again, then merge again", "merge(again(parts()), new_folder())"),
    ("rf.benched('share').flips()", "such as Strict()", "rf.benched('mark').flips()"),
    ("rf.domains_of(domains().drop(columns='area'))", "interp.study.area_frame(result, metric, layer)", "interp.study.area_frame(sweep().run(new_folder(), progress=False), 'ar', 1)"),
    ("rf.domains_of(domains().assign(value=np.nan))", "Choose samples whose metric is defined", "rf.domains_of(domains())"),
]  # fmt: skip
# a call that fails, words of its message, a call that follows them
ROWS: list[tuple[str, str, str]] = [*DATA, *MODELS, *RUNS]

ELSEWHERE: dict[str, str] = {  # the beginning of a message: why no row follows it, or the test that does
    "{…} it belongs to a video": "tests/inputs/test_video.py::test_a_row_of_a_jsonl_file_has_a_video: the message stands inside one that names the line",
    "a Mask is immutable": "an AttributeError, as of every frozen value; tests/inputs/test_masks.py::test_a_mask_is_immutable",
    "the model interp takes the likeliest token": "needs lmms-eval's base class; tests/lmms_eval/test_lmms_model.py::test_what_it_cannot_do_is_refused",
    "{…} decodes greedily; the task asks": "needs lmms-eval's base class; tests/lmms_eval/test_lmms_model.py::test_a_method_answers_with_its_heads_and_layers",
    "a method's parameters are chosen by accuracy": "tests/study/refinement/test_result.py::test_nothing_is_chosen_on_test_samples_or_without_answers",
    "the sample has no box, so there is nothing": "a reason among a result's failures; tests/study/layer_sweep/test_page.py",
}


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    return {"rf": sys.modules[__name__]}


def medsam(marks: np.ndarray | None) -> Path:
    """A folder with a file of MedSAM whose masks are these."""
    folder = Path(tempfile.mkdtemp())
    files.medsam_file(folder / "CT_a.npz", **({} if marks is None else {"gts": marks}))
    return folder


def encoded(held: list[dict[str, Any]]) -> bytes:
    """The bytes of the first row's image."""
    return _encoded(held, 0, "image", None)


def without_objects() -> Path:
    """A folder in VOC's layout without an object."""
    return files.voc_folder(Path(tempfile.mkdtemp()))


def check_frame(side: int) -> None:
    """Checks a video's frame of so many pixels a side."""
    _check_frame("in.mp4", SimpleNamespace(width=side, height=side))


def merged() -> Path:
    """An empty folder."""
    return Path(tempfile.mkdtemp())


def of_another_study(out: Path) -> Path:
    """A folder that holds, under the name of a run, another study."""
    (own,) = merge(of_study.parts(), out)
    of_study.edited(own)
    return out


def changing(parts: list[Path]) -> Any:
    """A merge while the files of a shard go."""
    seen, whole = set(), RunFolder.shard_bytes

    def once(folder: RunFolder, shard: int, tables: Any) -> Any:
        known = (folder.path, shard) in seen
        seen.add((folder.path, shard))
        return None if known else whole(folder, shard, tables)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "shard_bytes", once)
        return merge(parts, merged())


def benched(kind: str) -> Any:
    """The result of a benchmark whose scorer gives a share or a mark."""
    scorer = interp.metrics.scorers.Bleu1() if kind == "share" else interp.metrics.scorers.Strict()
    study = planted_benchmark.benchmark(scorer=scorer)
    return study.run(Path(tempfile.mkdtemp()), progress=False)


def grown(*, own: bool) -> interp.Mllm:
    """A model whose tokenizer got a word, with as many embeddings as before or as there are words now."""
    model, processor = tiny("llava")
    processor.tokenizer.add_tokens(["zzz"])
    n = processor.tokenizer.convert_tokens_to_ids("zzz")
    model.resize_token_embeddings(n if own else n + 1)
    return interp.wrap(model, processor)


def asked_of(mllm: interp.Mllm, question: str) -> Any:
    """A question as the model gets it."""
    image = np.zeros((64, 80, 3), np.uint8)
    return mllm.encode([interp.Sample(image, question)])


def domains_of(frame: Any) -> Any:
    """Two domains of a frame."""
    return two_domains(frame, "ar", None, "data", None, "area")


__all__ = ["PatchRows", "build", "checked"]
