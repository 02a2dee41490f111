"""Small folders of volumes and pictures with label maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image

NAMES = {"1": "liver", "2": "kidney tumor", "3": "spleen"}
AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])  # stored as LPS, slices of 2 mm


def volume_folder(root: Path, cases: int = 2, **described: Any) -> Path:
    """`imagesTr/case_K_0000.nii.gz`, `labelsTr/case_K.nii.gz` and `dataset.json`, as nnU-Net has them.

    The liver (1) is large and lies in slices 1 to 3 at the patient's right; the tumor (2) is small and round, in slice
    2; the spleen (3) lies in two equal pieces in slice 2.
    """
    rows, columns = np.mgrid[:60, :50]
    for k in range(cases):
        labels = np.zeros((60, 50, 5), np.int16)
        labels[4:28, 10:40, 1:4] = 1
        labels[..., 2][np.hypot(rows - 45, columns - 12 - k) < 5] = 2
        labels[40:44, 30:34, 2] = labels[50:54, 40:44, 2] = 3
        scan = np.full(labels.shape, -1000, np.int16)
        scan[2:58, 2:48] = 0
        scan[labels > 0] = 100 + k
        for place, name, values in (("imagesTr", f"case_{k}_0000", scan), ("labelsTr", f"case_{k}", labels)):
            (root / place).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, AFFINE), root / place / f"{name}.nii.gz")
    said = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{v: int(k) for k, v in NAMES.items()}},
    }
    (root / "dataset.json").write_text(json.dumps({**said, **described}))
    return root


def picture_folder(root: Path) -> Path:
    """`images/a.jpg` and `masks/a.png` with a round polyp (255)."""
    rows, columns = np.mgrid[:80, :100]
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    inside = np.hypot(rows - 30, columns - 40) < 8
    Image.fromarray(np.where(inside, 200, 50).astype(np.uint8)).save(root / "images/a.jpg")
    Image.fromarray((inside * 255).astype(np.uint8)).save(root / "masks/a.png")
    (root / "labels.json").write_text(json.dumps({"255": "polyp"}))
    return root
