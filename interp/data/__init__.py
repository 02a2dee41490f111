"""Bundled samples and one reader for each kind of source. Every reader returns `Samples`; see docs/data.md."""

from interp.data.bundled import bundled
from interp.data.coco import coco
from interp.data.coco_instances import coco_instances
from interp.data.csv import csv
from interp.data.dicom import dicom
from interp.data.frame import frame
from interp.data.hub import hub
from interp.data.jsonl import jsonl
from interp.data.medsam import medsam
from interp.data.medsg import medsg
from interp.data.medtrinity import medtrinity
from interp.data.nifti import nifti
from interp.data.open import named
from interp.data.refcoco import refcoco
from interp.data.s_chain import s_chain
from interp.data.sa_med2d import sa_med2d
from interp.data.samples import Samples
from interp.data.slake import slake
from interp.data.vgmed import vgmed
from interp.data.voc import voc
from interp.data.yolo import yolo

__all__ = [
    "Samples", "bundled", "coco", "coco_instances", "csv", "dicom", "frame", "hub", "jsonl", "medsam", "medsg",
    "medtrinity", "named", "nifti", "refcoco", "s_chain", "sa_med2d", "slake", "vgmed", "voc", "yolo",
]  # fmt: skip
