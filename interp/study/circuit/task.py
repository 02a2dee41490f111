"""The task of a `Circuit`: each sample's edges, and what graphs of the strongest of them keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from interp.errors import InterpError, RunError, SampleError, StudyError
from interp.run import Outcome
from interp.study.baselines import has_one_image, with_image_of
from interp.study.dataframes import NAME, SAMPLE_FIELDS
from interp.study.task import StudyTask, TableRows, suitable_threads
from interp.tracing.circuits import EdgeGraph, EdgePass, RunLayers, lens_layers
from interp.tracing.cost import Meter
from interp.tracing.encoding.batch import Batch

__all__ = ["CircuitTask"]

N_TRIED = 6
"""The number of other images that are tried until one gives another answer."""
SCORES = pa.schema(
    [("index", pa.int64()), ("n_edges", pa.int64()), ("measure", NAME), ("value", pa.float64())]
)
EDGES = pa.schema(
    [
        ("index", pa.int64()),
        ("source", NAME),
        ("receiver", NAME),
        ("effect", pa.float64()),
        ("exact", pa.float64()),
    ]
)
SAMPLES = pa.schema(
    [
        *SAMPLE_FIELDS,
        ("token", pa.string()),
        ("other_token", pa.string()),
        ("other", pa.string()),
        ("value_all", pa.float64()),
        ("value_none", pa.float64()),
    ]
)


class CircuitTask(StudyTask):
    """Computes a `Circuit`."""

    name = "circuit"
    needs_boxes = False

    def to_dict(self) -> dict[str, Any]:
        """Everything the stored numbers depend on; the seed decides which images are tried first."""
        study = self.study
        graph = None if study.graph is None else [list(one) for one in study.graph]
        own = {"against": study.against, "sizes": list(study.sizes), "exact": study.exact, "graph": graph}
        own |= {"n_images": study.n_images} if study.against == "mean" else {}
        own["executor"] = study.executor
        return {**super().to_dict(), **own, "seed": study.seed, "tried": N_TRIED}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_run_layers"}

    def schemas(self) -> Mapping[str, pa.Schema]:
        """The tables: one row per sample and number of edges, one per sample and edge, one per sample."""
        return {"scores": SCORES, "edges": EDGES, "samples": SAMPLES}

    def joined(self) -> tuple[str, ...]:
        """All tables."""
        return ("scores", "edges", "samples")

    def measure(self, indices: tuple[int, ...]) -> Outcome:
        """Rows of each sample, which run one by one."""
        costs: list[float] = []
        with suitable_threads(self.mllm):
            tables = self.each(indices, lambda _, index: self._rows(index, costs))
        return Outcome(tables, {"forwards": float(sum(costs))})

    def _rows(self, index: int, costs: list[float]) -> TableRows:
        with Meter(self.mllm.device) as meter:
            lender, found = self._pass(index, meter)
        costs.append(float(meter.cost.forwards))
        graph, valid = found.graph, found.graph.edges
        effects = found.attribution()
        order = self._order(graph, effects)
        exact = np.full(effects.shape, np.nan)
        for place, value in zip(order[: self.study.exact], self._patched(found, order), strict=True):
            exact.flat[place] = value
        plain, none = found.value(valid), found.value(np.zeros_like(valid))
        scores, gap = [], plain - none or np.nan
        for n in (n for n in self.study.sizes if n <= min(valid.sum(), len(order))):
            value = found.value(_kept(valid, order[:n]))
            row = {"index": index, "n_edges": n}
            scores.append({**row, "measure": "share", "value": (value - none) / gap})
            scores.append({**row, "measure": "value", "value": value})
        token, other = (str(self.mllm.processor.tokenizer.decode([one])).strip() for one in found.answers)
        said = {"token": token, "other_token": other, "other": self.identity(lender)[0]}
        row = {**self._sample_fields(index), **said, "value_all": plain, "value_none": none}
        edges = list(_edges(index, graph, valid, effects, exact))
        return {"scores": scores, "edges": edges, "samples": [row]}

    def _patched(self, found: EdgePass, order: Int[np.ndarray, " edge"]) -> Float[np.ndarray, " patched"]:
        """The exact effects of the first edges of the order, in nats."""
        places = np.unravel_index(order[: self.study.exact], found.graph.edges.shape)
        return found.path_patch(
            [(int(source), int(receiver)) for source, receiver in zip(*places, strict=True)]
        )

    def _order(
        self, graph: EdgeGraph, effects: Float[np.ndarray, "source receiver"]
    ) -> Int[np.ndarray, " edge"]:
        """The edges as indices into the flat array, strongest first; those of the study's graph where it has one."""
        if self.study.graph is None:
            order = np.argsort(-np.abs(effects), axis=None, kind="stable")
            return order[graph.edges.flat[order]]
        sources, receivers, found = graph.sources, graph.receivers, []
        for source, receiver in self.study.graph:
            known = source in sources and receiver in receivers
            if not known or not graph.edges[sources.index(source), receivers.index(receiver)]:
                raise StudyError(
                    f"this model has no edge from {source!r} to {receiver!r}; it has {self.mllm.n_layers} layers of "
                    f"{self.mllm.n_heads} heads, and an edge goes from a source to a receiver that reads later."
                )
            found.append(sources.index(source) * len(receivers) + receivers.index(receiver))
        return np.array(found)

    def _pass(self, index: int, meter: Meter) -> tuple[int, EdgePass]:
        """The index of the sample that lends an image with another answer, and the pass over both images."""
        run_layers = self._run_layers
        batch = self._asked(index, index)
        problem: InterpError | None = None
        lenders = self._lenders(index)
        for lender in lenders[:N_TRIED]:
            try:
                other = self._asked(index, lender)
                more = self._more(index, [one for one in lenders if one != lender], batch)
                found = EdgePass.of(
                    self.mllm, batch, other, self.study.against, meter, more=more, run_layers=run_layers
                )
                return lender, found
            except InterpError as error:
                problem = error
        raise problem or SampleError(
            "a circuit asks each question on another sample's image, and no other sample has one image. Give more."
        )

    def _asked(self, index: int, lender: int) -> Batch:
        """The sample's question on the image of the lender, which may be the sample itself."""
        sample = self.study.data[index]
        asked = sample if lender == index else with_image_of(sample, self.study.data[lender])
        return self.mllm.encode([asked], prompt=self.study.prompt)

    def _more(self, index: int, lenders: list[int], batch: Batch) -> list[Batch]:
        """For "mean", the question on the first other images whose prompt is as long as the sample's own."""
        found: list[Batch] = []
        wanted = self.study.n_images - 1 if self.study.against == "mean" else 0
        for lender in lenders:
            if len(found) == wanted:
                break
            asked = self._asked(index, lender)
            if asked.tokens[0].length == batch.tokens[0].length:
                found.append(asked)
        if len(found) < wanted:
            raise SampleError(
                f"a mean over {wanted + 1} other images needs as many that give a prompt of the same length; got "
                f"{len(found) + 1}. Give more samples, images of one size, or a smaller n_images."
            )
        return found

    @cached_property
    def _run_layers(self) -> RunLayers | None:
        if self.study.executor != "transformer_lens":
            return None
        try:
            return lens_layers(self.mllm)
        except InterpError as error:  # of the model, and not of a sample
            raise RunError(f"no circuit can be run through TransformerLens: {error}") from error

    def _lenders(self, index: int) -> list[int]:
        """The samples with other pictures in the order of the tries; those with the same question come first."""
        data = self.study.data
        able = [
            i
            for i in range(len(data))
            if i != index and has_one_image(data[i]) and data.pictures[i] != data.pictures[index]
        ]
        if not has_one_image(data[index]):
            return []
        drawn = np.random.default_rng([self.study.seed, index]).permutation(len(able))
        own = data[index]
        return sorted(
            (able[i] for i in drawn),
            key=lambda i: (data[i].question != own.question, data[i].answer == own.answer),
        )


def _kept(
    valid: Bool[np.ndarray, "source receiver"], order: Int[np.ndarray, " edge"]
) -> Bool[np.ndarray, "source receiver"]:
    found = np.zeros_like(valid)
    found.flat[order] = True
    return found


def _edges(
    index: int,
    graph: EdgeGraph,
    valid: Bool[np.ndarray, "source receiver"],
    effects: Float[np.ndarray, "source receiver"],
    exact: Float[np.ndarray, "source receiver"],
) -> Iterator[dict[str, Any]]:
    for source, receiver in np.argwhere(valid):
        names = {"source": graph.sources[source], "receiver": graph.receivers[receiver]}
        numbers = {"effect": float(effects[source, receiver]), "exact": float(exact[source, receiver])}
        yield {"index": index, **names, **numbers}
