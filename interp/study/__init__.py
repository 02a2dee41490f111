"""Studies: values that say what is measured on what, and what they found."""

from __future__ import annotations

from interp.study.benchmark.paper_tables import PaperTable, paper_table
from interp.study.benchmark.result import BenchmarkResult
from interp.study.benchmark.study import Benchmark
from interp.study.circuit.result import CircuitResult
from interp.study.circuit.study import Circuit
from interp.study.compare import compare, compare_groups
from interp.study.conventions import PAPER_PIXELS, paper_model
from interp.study.first_look.look import Look, look
from interp.study.grid import Grid
from interp.study.grounding.grounded_answer import GroundedAnswer, GroundedPhrase, ground
from interp.study.head_attribution.study import HeadAttribution
from interp.study.head_ranking.head_set import HeadSet, published_heads
from interp.study.head_ranking.rank_agreement import head_agreement
from interp.study.head_ranking.result import HeadGrid, HeadResult
from interp.study.head_ranking.study import HeadRanking
from interp.study.head_roles.result import HeadTable
from interp.study.head_roles.study import HeadRoles
from interp.study.indicator_comparison.result import IndicatorResult
from interp.study.indicator_comparison.study import IndicatorComparison
from interp.study.knockout_sweep.flows import Flow
from interp.study.knockout_sweep.result import KnockoutResult
from interp.study.knockout_sweep.study import KnockoutSweep
from interp.study.layer_choice import LayerChoice, check_split, choose_layer
from interp.study.layer_sweep.result import Cell, Result, lesion_hits
from interp.study.layer_sweep.study import LayerSweep
from interp.study.logit_lens.study import LensSweep
from interp.study.model_spec import ModelSpec
from interp.study.probe_sweep.result import ProbeResult
from interp.study.probe_sweep.study import ProbeSweep
from interp.study.reasoning_sweep.study import ReasoningSweep
from interp.study.refinement.result import RefinementResult
from interp.study.refinement.study import Refinement
from interp.study.result import GridResult
from interp.study.runs import GridCell
from interp.study.size_matching import Matched, Stratified, area_frame, matched, stratified
from interp.study.stated_boxes.study import StatedBoxes
from interp.study.study import Study
from interp.study.task import StudyTask

__all__ = [
    "PAPER_PIXELS",
    "Benchmark",
    "BenchmarkResult",
    "Cell",
    "Circuit",
    "CircuitResult",
    "Flow",
    "Grid",
    "GridCell",
    "GridResult",
    "GroundedAnswer",
    "GroundedPhrase",
    "HeadAttribution",
    "HeadGrid",
    "HeadRanking",
    "HeadResult",
    "HeadRoles",
    "HeadSet",
    "HeadTable",
    "IndicatorComparison",
    "IndicatorResult",
    "KnockoutResult",
    "KnockoutSweep",
    "LayerChoice",
    "LayerSweep",
    "LensSweep",
    "Look",
    "Matched",
    "ModelSpec",
    "PaperTable",
    "ProbeResult",
    "ProbeSweep",
    "ReasoningSweep",
    "Refinement",
    "RefinementResult",
    "Result",
    "StatedBoxes",
    "Stratified",
    "Study",
    "StudyTask",
    "area_frame",
    "check_split",
    "choose_layer",
    "compare",
    "compare_groups",
    "ground",
    "head_agreement",
    "lesion_hits",
    "look",
    "matched",
    "paper_model",
    "paper_table",
    "published_heads",
    "stratified",
]
