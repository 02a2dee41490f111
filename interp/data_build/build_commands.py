"""`interp data build`: a grounding set from labelled data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from interp.data.lines import as_path, shown
from interp.data.open import guess, read
from interp.data.readers.sa_med2d import sa_med2d
from interp.data.samples import Samples
from interp.data_build.endpoint import Endpoint
from interp.data_build.pairs import Settings
from interp.data_build.pipeline import Built, build
from interp.data_build.scans import is_scans, scans
from interp.errors import DataError
from interp.inputs.text import count

__all__ = ["COMMANDS", "build_command"]

LISTED = 5
"""The most failures that are printed."""


def build_command(
    path: Annotated[Path, tyro.conf.Positional],
    out: Path,
    *,
    reader: str | None = None,
    images: Path | None = None,
    labels: Path | None = None,
    names: str | None = None,
    modality: str | None = None,
    region: str | None = None,
    plane: str = "axial",
    slices: str = "all",
    grey: str | None = None,
    longest: int | None = None,
    n: int | None = None,
    seed: int = 0,
    share: float = Settings.share,
    area: tuple[float, float] = Settings.area,
    complete: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    endpoint: str | None = None,
    llm: str | None = None,
    key_variable: str = Endpoint.key_variable,
) -> int:
    """Make a grounding set: from masks to boxes to a localization and an attribute question about each structure.

    Writes images/, samples.jsonl and build.json. The path is a folder with images and labels (or masks), of NIfTI,
    DICOM or pictures, nnU-Net's names too; or what a reader knows, such as a COCO instances file.

    Args:
        path: a file or folder of labelled data.
        out: a new or empty folder, or one of an earlier build.
        reader: name of the reader, such as coco_instances; by default guessed from the layout.
        images: folder of the images, where the layout does not say it.
        labels: label map of one volume.
        names: names of labels as JSON, such as '{"1": "liver"}'.
        modality: modality of a folder of volumes or pictures.
        region: body region of a folder of volumes or pictures.
        plane: axial, coronal or sagittal.
        slices: all, or largest (for each label the slice where it is largest).
        grey: percentiles, or a window of CT: soft tissue, lung, bone.
        longest: longest side of a slice in pixels.
        n: largest number of structures that are asked about, drawn evenly over modalities, regions and labels.
        seed: seed of the draw.
        share: least share of a structure's area in its largest piece.
        area: least and largest share of the picture that a box may cover.
        complete: the labels name every structure, so that one without a label is absent.
        endpoint: base URL of an OpenAI-compatible server that words the questions; only words are sent.
        llm: name of the model at the endpoint.
        key_variable: environment variable that holds the key of the endpoint.
    """
    if (endpoint is None) != (llm is None):
        raise DataError("--endpoint URL and --llm NAME go together. Give both, or neither for templates.")
    settings = Settings(n=n, seed=seed, share=share, area=area, complete=complete)
    words = None if endpoint is None or llm is None else Endpoint(endpoint, llm, key_variable)
    cut = {"plane": plane, "slices": slices, "grey": grey, "longest": longest}
    given = {"names": _names(names), "modality": modality, "region": region, **cut}
    samples = _read(as_path(path), reader, images, labels, given)
    _print(build(samples, out, settings, endpoint=words))
    return 0


def _names(text: str | None) -> dict[int, str] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
        return {int(value): str(label) for value, label in found.items()}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(f"""--names is JSON, such as '{{"1": "liver"}}'; got {text[:200]!r}.""") from error


def _read(
    path: Path, reader: str | None, images: Path | None, labels: Path | None, given: dict[str, Any]
) -> Samples:
    """The samples of a folder of scans, or those of the reader."""
    if reader is None and labels is None and path.is_dir() and is_scans(path):
        return scans(path, **given)
    name = guess(path) if reader is None else reader
    if name in ("nifti", "dicom") and labels is not None:
        from interp.data import dicom, nifti

        options = {
            key: value for key, value in given.items() if key in ("names", "plane", "slices", "longest")
        }
        options |= {} if given["grey"] is None else {"grey": given["grey"]}
        found = (nifti if name == "nifti" else dicom)(path, labels, masks=True, least=1, **options)
    else:
        cut = [key for key in ("names", "grey", "longest") if given[key] is not None]
        if cut:
            raise DataError(
                f"--{cut[0]} is for volumes and label maps; {shown(path)} is read by {name}. Leave it out."
            )
        found = (
            sa_med2d(path, masks=True)
            if name == "sa_med2d"
            else read(path, name, images=images, labels=labels)
        )
    own = {key: given[key] for key in ("modality", "region") if given[key] is not None}
    return found.like(
        one.replace(meta={**one.meta, **own}) if own and one.is_usable else one for one in found
    )


def _print(built: Built) -> None:
    record = built.record
    print(
        f"{built.folder}: {count(record['samples'], 'question')} on {count(record['pictures'], 'picture')} of "
        f"{count(record['groups'], 'group')}"
    )
    for field, counts in record["counts"].items():
        print(f"  {field:<9} {', '.join(f'{value} ×{n}' for value, n in counts.items())}")
    for why, n in record["dropped"].items():
        print(f"  dropped   {n} × {why}")
    for one in record["failures"][:LISTED]:
        print(f"  failed    {one['id']}: {' '.join(one['error'].split())}")
    print("look at them: interp data check " + str(built.folder / "samples.jsonl"))


COMMANDS: dict[str, Callable[..., int]] = {"build": build_command}
"""Commands of `interp data` by name."""
