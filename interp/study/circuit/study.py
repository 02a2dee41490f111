"""Which edges between heads, MLPs, the image and the answer carry the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.errors import StudyError
from interp.inputs.argument_checks import check_whole
from interp.study.circuit.result import CircuitResult
from interp.study.circuit.task import CircuitTask
from interp.study.runs import GridCell
from interp.study.study import Study, field, one_of, whole_number

__all__ = ["Circuit"]


def _sizes(given: Any) -> Any:
    if not isinstance(given, tuple | list) or not given:
        raise StudyError(f"sizes are numbers of edges, one or more; got {given!r:.200}.")
    return tuple(sorted({check_whole("a size", one, 0, StudyError) for one in given}))


def _graph(given: Any) -> Any:
    if given is None:
        return None
    pairs = list(given) if isinstance(given, tuple | list) else []
    known = all(isinstance(one, tuple | list) and len(one) == 2 for one in pairs)
    if not pairs or not known or not all(isinstance(name, str) for one in pairs for name in one):
        raise StudyError(
            'graph is a list of edges such as ("image", "L01H05"), the strongest first, as CircuitResult.graph(n) '
            f"gives them; got {given!r:.200}."
        )
    return tuple((source, receiver) for source, receiver in pairs)


class Circuit(Study[CircuitResult]):
    """A graph from the image to the answer: heads and MLPs, and how much of the answer each edge between them carries.

    The value is log p(a) − log p(b) after the last prompt token, in nats: a is the token that the model says of the
    sample, b the one that it says of the same question on another sample's image (the first of some that gives another
    token). What a node reads is a sum over what earlier nodes wrote, so one edge (source, receiver) can be replaced:

    - `effect`, edge attribution patching: to first order, how far the value falls when the receiver gets from the
      source what it writes in the reference; all edges from one forward and backward pass.
    - `exact`, path patching: the same by a pass of its own, for the `exact` edges of largest |effect| of each sample.
    - `share`: with all edges but the n of largest |effect| replaced at once, (value − value with none) /
      (value with all − value with none). 1: the graph carries all of the difference. Below 0
      and above 1 are possible: edges left out worked against the answer.

    Above 0 an effect speaks for the sample's own answer. First-order effects can be far from exact ones where the
    model saturates: compare the two columns. Edges are chosen on the very sample whose share they are to keep unless
    `graph` names them, so their shares flatter: take `result.graph(n)` of one set to another.

    Args:
        data: Samples with one image each, of two answers at least; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use). Its layers must be plain: stream +
            attention(norm) + MLP(norm).
        against: The reference: "image", what a source writes for the other image (resample ablation); "mean", what it
            writes on average, token by token, for the question on `n_images` other images (mean ablation); or "zero":
            heads and MLPs write nothing, embeddings stay.
        n_images: Other images that "mean" is over, the one that gives token b among them.
        sizes: Numbers of edges whose share is measured; those above the number of edges are left out.
        exact: How many edges are patched exactly in each sample.
        graph: Edges to keep, by name, the strongest first; None for each sample's own.
        executor: What runs the decoder: "transformers", the model's own layers, or "transformer_lens", a bridge of
            TransformerLens on the same weights, whose inputs are split by head (extra `lens`). The same numbers up to
            rounding.
        prompt: How the question is put.
        seed: Of the order in which other images are tried, and of the bootstrap.
        batch: Part of the hash; samples run one by one.

    Raises:
        StudyError: No samples, or a value that makes no sense.

    Source: Wang et al. 2022 (arXiv 2211.00593) and Goldowsky-Dill et al. 2023 (arXiv 2304.05969), path patching; Syed
    et al. 2023 (arXiv 2310.10348), edge attribution patching; Hanna et al. 2024 (arXiv 2403.17806) on faithfulness;
    Wang et al. 2022 (arXiv 2211.00593) on mean ablation.
    """

    against: str = field(default="image", validator=one_of("image", "mean", "zero"))
    n_images: int = field(default=8, validator=whole_number(2))
    sizes: tuple[int, ...] = field(default=(5, 10, 20, 40, 80, 160, 320, 640), converter=_sizes)
    exact: int = field(default=10, validator=whole_number(0))
    graph: tuple[tuple[str, str], ...] | None = field(default=None, converter=_graph)
    executor: str = field(default="transformers", validator=one_of("transformers", "transformer_lens"))

    name = "circuit"
    title = "Circuit"
    page = "interp.study.circuit.page"

    @property
    def question(self) -> str:
        """What the study answers, in a sentence."""
        return "Through which heads does the image reach the answer?"

    def task(self, mllm: Any) -> CircuitTask:
        """The study as work for the runner."""
        return CircuitTask(self, mllm)

    def collect(self, whole: Any, cells: tuple[GridCell, ...], folder: Path) -> CircuitResult:
        """The result of this study, or of a grid over it."""
        return CircuitResult.of(whole, cells, folder)
