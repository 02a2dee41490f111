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

    The value is log p(a) − log p(b) after the last prompt token, in nats: a is the first token of the model's answer, b
    that of its answer to the same question on another sample's image (the first image tried that gives another token).
    A node reads the sum of what earlier nodes wrote, so a single edge (source, receiver) can be replaced:

    - `effect`, edge attribution patching: to first order, how far the value falls when the source's output to the
      receiver is replaced by its output in the reference; one forward and backward pass gives all edges.
    - `exact`, path patching: the same effect by a separate pass, for the `exact` edges of largest |effect| in each
      sample.
    - `share`: all edges except the n of largest |effect| are replaced at once: (value − value with no edge) / (value
      with all edges − value with no edge). 1: the graph carries all of the difference. Values below 0 and above 1
      occur, because edges that were left out can work against the answer.

    An effect above 0 supports the sample's own answer. First-order effects can be far from exact ones where the model
    saturates: compare the two columns. Unless `graph` names the edges, they are chosen on the same sample on which the
    share is measured, so the shares are too high: test `result.graph(n)` of one set on another.

    Args:
        data: Samples with one image each and at least two different answers; a plain list becomes `Samples`.
        model: Id, `ModelSpec`, or an opened model (which only one process can use). Its layers must be plain: stream +
            attention(norm) + MLP(norm).
        against: The reference: "image", the source's output for the other image (resample ablation); "mean", its mean
            output, token by token, for the question on `n_images` other images (mean ablation); or "zero": heads and
            MLPs write nothing, embeddings stay.
        n_images: The number of other images that "mean" averages over, including the one that gives token b.
        sizes: The numbers of edges n for which the share is measured; numbers above that of all edges are left out.
        exact: The number of edges that are patched exactly in each sample.
        graph: The edges to keep, by name, the strongest first; None to choose them in each sample.
        executor: What runs the decoder: "transformers", the model's own layers, or "transformer_lens", a bridge of
            TransformerLens on the same weights, whose inputs are split by head (extra `lens`). Both give the same
            numbers up to rounding.
        prompt: How the question is put.
        seed: The seed of the order in which other images are tried, and of the bootstrap.
        batch: Part of the hash; samples run one by one.

    Raises:
        StudyError: There are no samples, or a field has a value of the wrong type or out of range.

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
