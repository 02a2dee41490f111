"""Bundled samples, and a reader for each kind of source. Every reader returns `Samples`; see docs/data.md."""

from interp.data.benchmarks.huatuo import huatuo
from interp.data.benchmarks.mmmu import mmmu
from interp.data.benchmarks.omnimedvqa import omnimedvqa
from interp.data.benchmarks.path_vqa import path_vqa
from interp.data.benchmarks.pmc_vqa import pmc_vqa
from interp.data.benchmarks.vqa_rad import vqa_rad
from interp.data.open import named
from interp.data.questions import presence_questions, question_counts
from interp.data.readers.bundled import bundled
from interp.data.readers.coco_and_vgmed import coco, vgmed
from interp.data.readers.coco_instances import coco_instances
from interp.data.readers.csv import csv
from interp.data.readers.frame import frame
from interp.data.readers.hub import hub
from interp.data.readers.jsonl import jsonl
from interp.data.readers.medsam import medsam
from interp.data.readers.medsg import medsg
from interp.data.readers.medtrinity import medtrinity
from interp.data.readers.nifti_and_dicom import dicom, nifti
from interp.data.readers.refcoco import refcoco
from interp.data.readers.s_chain import s_chain
from interp.data.readers.sa_med2d import sa_med2d
from interp.data.readers.slake import slake
from interp.data.readers.voc import voc
from interp.data.readers.yolo import yolo
from interp.data.samples import Samples

__all__ = [
    "Samples", "bundled", "coco", "coco_instances", "csv", "dicom", "frame", "huatuo", "hub", "jsonl", "medsam",
    "medsg", "medtrinity", "mmmu", "named", "nifti", "omnimedvqa", "path_vqa", "pmc_vqa", "presence_questions",
    "question_counts", "refcoco", "s_chain", "sa_med2d", "slake", "vgmed", "voc", "vqa_rad", "yolo",
]  # fmt: skip
