"""Studies: values that say what is measured on what, and what they found."""

from __future__ import annotations

from interp.study.areas import Matched, area_frame, matched
from interp.study.cells import GridCell, run_study
from interp.study.choice import LayerChoice, check_split, choose_layer
from interp.study.comparison import compare, compare_groups
from interp.study.flows import Flow
from interp.study.grid import Grid
from interp.study.grid_result import GridResult
from interp.study.head_agreement import head_agreement
from interp.study.head_attribution import HeadAttribution
from interp.study.head_grid import HeadGrid
from interp.study.head_ranking import HeadRanking
from interp.study.head_result import HeadResult
from interp.study.head_set import HeadSet, published_heads
from interp.study.indicator_comparison import IndicatorComparison
from interp.study.indicator_result import IndicatorResult
from interp.study.knockout_result import KnockoutResult
from interp.study.knockout_sweep import KnockoutSweep
from interp.study.layer_sweep import LayerSweep
from interp.study.lens_sweep import LensSweep
from interp.study.model import ModelSpec
from interp.study.refinement import Refinement
from interp.study.refinement_result import RefinementResult
from interp.study.result import Cell, Result
from interp.study.strata import Stratified, stratified
from interp.study.study import Study, study_labels
from interp.study.study_task import StudyTask

__all__ = [
    "Cell",
    "Flow",
    "Grid",
    "GridCell",
    "GridResult",
    "HeadAttribution",
    "HeadGrid",
    "HeadRanking",
    "HeadResult",
    "HeadSet",
    "IndicatorComparison",
    "IndicatorResult",
    "KnockoutResult",
    "KnockoutSweep",
    "LayerChoice",
    "LayerSweep",
    "LensSweep",
    "Matched",
    "ModelSpec",
    "Refinement",
    "RefinementResult",
    "Result",
    "Stratified",
    "Study",
    "StudyTask",
    "area_frame",
    "check_split",
    "choose_layer",
    "compare",
    "compare_groups",
    "head_agreement",
    "matched",
    "published_heads",
    "run_study",
    "stratified",
    "study_labels",
]
