"""The scripts of the paper's figures, tables and appendices: what each makes, what it needs, and where it is.

The scripts are in the repository, not in the installed package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import interp
from interp.errors import RunError
from interp.inputs.text import meant

__all__ = ["DATA", "FIGURES", "DataSource", "Figure", "figures_named", "scripts_folder"]


Takes = Literal["none", "one", "many"]
BOTH = ("n", "n-validation")
MEDICAL_VQA = ("vqa_rad", "slake", "path_vqa", "pmc_vqa")
_CHOICE: dict[str, Any] = {"paper_mode": True, "chooses": True, "n": BOTH}
MARK = "fig3_layer_sweep.py"


@dataclass(frozen=True)
class DataSource:
    """Data that the paper measured on, and how to get them.

    Attributes:
        label: The name of the data.
        how: The source of the data, and the files that the folder must hold.
        option: The option of `interp reproduce` that names the folder.
        name: A benchmark's name for `--data`, with its settings, such as "vqa_rad,closed=answer_type".
        split: The split of a benchmark behind the paper's numbers, inferred from their sizes.
    """

    label: str
    how: str
    option: str
    name: str = ""
    split: str = "test"


def _benchmark(label: str, hub: str, name: str, split: str = "test") -> DataSource:
    option = f"--benchmarks {name.partition(',')[0]}=FOLDER"
    return DataSource(label, f"huggingface.co/datasets/{hub} (docs/benchmarks.md)", option, name, split)


DATA: dict[str, DataSource] = {
    "vgmed": DataSource(
        "VGMED",
        "huggingface.co/datasets/guimeng-liu/VGMED: VGMED_attribute.jsonl and VGMED_localization.jsonl beside the "
        "images",
        "--vgmed FOLDER",
    ),
    "coco": DataSource(
        "COCO",
        "COCO_attribute.jsonl and COCO_localization.jsonl from huggingface.co/datasets/guimeng-liu/VGMED, with the "
        "images of val2014 from cocodataset.org in the folder or in its folder val2014",
        "--coco FOLDER",
    ),
    "vqa_rad": _benchmark("VQA-RAD", "flaviagiammarino/vqa-rad", "vqa_rad,closed=answer_type", "all"),
    "slake": _benchmark("SLAKE", "BoKelvin/SLAKE", "slake", "all"),
    "path_vqa": _benchmark("PathVQA", "flaviagiammarino/path-vqa", "path_vqa"),
    "pmc_vqa": _benchmark("PMC-VQA", "RadGenome/PMC-VQA", "pmc_vqa"),
    "mmmu": _benchmark("MMMU Health & Medicine", "MMMU/MMMU", "mmmu"),
    "omnimedvqa": _benchmark("OmniMedVQA", "foreverbeliever/OmniMedVQA", "omnimedvqa"),
}
"""Name → the data."""


@dataclass(frozen=True)
class Figure:
    """A figure, table or appendix, and the script that makes it.

    Attributes:
        name: The name that `--only` takes.
        paper: The figure's number in the paper.
        shows: A short description of the content.
        script: The script's file in `studies/`, without ".py".
        page: The page that the script writes under `--out`.
        models: The number of models that the script takes: "none", "one" or "many".
        data: The data that the paper uses there, as names of `DATA`.
        benchmark: Whether `data` are benchmarks, which the script takes as `--data NAME:FOLDER …` with their splits.
        open_questions: Whether the script asks the benchmarks' open questions, of the test split since the paper names
            none.
        paper_mode: Whether the script takes `--paper`.
        chooses: Whether the script chooses heads or a layer for VGRefine, with `--choose-on` and `--published-heads`.
        one_set: Whether the script takes one data set.
        one_token: Whether the official code generates a single token for this figure.
        n: The script's options for numbers of samples: those of a data set, and those to choose on.
        shows_all: Whether the page shows every sample that is run, so that the script never runs all samples.
        published: The paper's tables that the index shows for this figure.
        note: A remark for readers who compare the page with the paper.
    """

    name: str
    paper: str
    shows: str
    script: str
    page: str
    models: Takes = "one"
    data: tuple[str, ...] = ("coco", "vgmed")
    benchmark: bool = False
    open_questions: bool = False
    paper_mode: bool = False
    chooses: bool = False
    one_set: bool = False
    one_token: bool = False
    n: tuple[str, ...] = ("n",)
    shows_all: bool = False
    published: tuple[str, ...] = ()
    note: str = ""


def _table(name: str, paper: str, shows: str, script: str, data: tuple[str, ...], **more: Any) -> Figure:
    """A table of benchmarks, whose page has the script's name."""
    return Figure(name, paper, shows, script, f"{script}.html", data=data, benchmark=True, **_CHOICE, **more)


FIGURES: tuple[Figure, ...] = (
    Figure(
        "fig1", "Figure 1", "attention maps on natural and medical images", "fig1_attention_maps", "fig1.html",
        models="many", paper_mode=True, n=BOTH, shows_all=True, note="Samples are drawn by a seed, not picked.",
    ),
    Figure(
        "fig2", "Figure 2b, tables B.1 and C.2", "shares of modality and body region; related works; source sets",
        "fig2_dataset", "fig2.html", models="none", data=("vgmed",), n=(),
    ),
    Figure(
        "fig3", "Figure 3", "AR, KL and JS by layer, several models", "fig3_layer_sweep", "fig3.html",
        models="many", paper_mode=True, note="KL and JS depend on the boxes' sizes: see the comparisons at like sizes.",
    ),
    Figure(
        "figD1", "Figure D.1", "heads ranked on natural and medical images", "figD1_head_ranking", "figD1.html",
        paper_mode=True,
    ),
    Figure(
        "figJ2", "Figure J.2", "maps before and after VGRefine", "figJ2_before_after", "figJ2.html",
        models="many", data=("vgmed",), shows_all=True, **_CHOICE,
    ),
    Figure(
        "figL", "Figure L", "rows of the question, of the object's word, of the answer, of all after the image",
        "figL_text_tokens", "figL.html", paper_mode=True, n=BOTH,
    ),
    Figure(
        "figM", "Figure M", "failures: looked or not, right or not", "figM_failures", "figM.html",
        data=("vgmed",), paper_mode=True, n=BOTH,
    ),
    _table(
        "table1", "Table 1", "closed questions of four medical VQA sets", "table1_vqa", MEDICAL_VQA, published=("1",),
        one_token=True,
    ),
    _table("table2", "Table 2", "MMMU Health & Medicine", "table2_mmmu", ("mmmu",), published=("2",), one_token=True),
    _table(
        "table3", "Table 3", "OmniMedVQA by modality", "table3_omnimedvqa", ("omnimedvqa",), published=("3",),
        one_token=True,
    ),
    Figure(
        "table4", "Table 4", "VGRefine's k heads and percentile p: both sweeps, and the whole grid", "table4_ablation",
        "table4_sweeps.html", data=("vgmed",), published=("4k", "4p"), **_CHOICE,
        note="On grounded samples, not on the four benchmarks of the paper's table; the whole grid is table4.html.",
    ),
    _table(
        "tableE3", "Table E.3", "open questions: BLEU-1, BERTScore, recall", "tableE3_open", MEDICAL_VQA[:3],
        open_questions=True, published=("E.3",),
        note="The paper names neither split nor encoder; without an encoder (--bert) BERTScore is left out.",
    ),
    _table(
        "tableF4", "Table F.4", "VGRefine beside PAI, AdaptVis, ViCrop", "tableF4_benchmarks", MEDICAL_VQA,
        published=("F.4",), one_token=True,
    ),
    Figure(
        "methods", "Table F.4, on grounded samples", "every method, with paired tests and costs", "tableF4_methods",
        "tableF4.html", data=("vgmed",), **_CHOICE,
    ),
    _table(
        "tableG5", "Table G.5", "34B models", "tableG5_larger", (*MEDICAL_VQA, "mmmu", "omnimedvqa"),
        published=("G.5",), one_token=True,
        note="The 34B model's heads are not published, and the numbers of its masked layers are lost in our copy: call "
        "the script itself with --layers.",
    ),
    _table(
        "tableK", "Appendix K", "general benchmarks, image sizes", "tableK_general", (),
        note="General questions come as a file, and sizes by --pixels: call the script itself. The paper's own were "
        "not at hand.",
    ),
    Figure(
        "figJ1", "Appendix J.1", "which map clinicians prefer", "reader_study", "reader_study/page.html",
        data=("vgmed",), one_set=True, n=("n-cases", "n-validation"), shows_all=True,
        note="The page asks people. What they answer is read by the script's --answers.",
    ),
    Figure(
        "vgrefine", "Section 4", "VGRefine before and after, in both variants", "vgrefine", "vgrefine.html",
        data=("vgmed",), **_CHOICE,
    ),
)  # fmt: skip
"""The figures, in the paper's order."""


def figures_named(names: Sequence[str]) -> tuple[Figure, ...]:
    """The figures of these names, in the order of `FIGURES`; all without a name.

    Raises:
        RunError: An unknown name.
    """
    known = {figure.name for figure in FIGURES}
    if unknown := [name for name in names if name not in known]:
        raise RunError(
            f"expected names of figures and tables: {', '.join(figure.name for figure in FIGURES)}; got "
            f"{', '.join(unknown)}.{meant(unknown, known)} `interp reproduce --list` says what each is."
        )
    return tuple(figure for figure in FIGURES if not names or figure.name in names)


def scripts_folder(given: Path | None = None) -> Path:
    """The folder of the scripts: the given one, else that of the checkout of this package, else ./studies.

    Raises:
        RunError: No folder holds the scripts.
    """
    if given is not None:
        if not any(given.glob("*.py")):
            raise RunError(
                f"expected the folder studies/ of interp's repository; {given} holds no script. Pass --studies FOLDER."
            )
        return given.resolve()
    package = Path(interp.__file__).resolve().parent
    for folder in (package.parent / "studies", Path.cwd() / "studies"):
        if (folder / MARK).is_file():
            return folder.resolve()
    raise RunError(
        f"the scripts of the figures are in the folder studies/ of interp's repository, which is not part of the "
        f"installed package at {package}. Run this in a checkout of the repository, or name its folder: "
        "interp reproduce --studies FOLDER."
    )
