"""One edit of attention as a person chooses it in the explorer, and the code that reproduces what is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import EditError
from interp.inputs.argument_checks import check_one_of
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.tracing import Edit, Knockout, ScaleScores, ScaleWeights, Site, image_mask

__all__ = ["KINDS", "ROWS", "Change", "reproduction"]


KINDS = ("knockout", "zero", "weights", "scores")
ROWS = ("last", "question", "after_image")


@dataclass(frozen=True)
class Change:
    """An edit of the rows' attention to chosen image tokens, in chosen layers or heads.

    Args:
        kind: "knockout" hides the tokens, and the other keys take their share; "zero" sets their weights to 0;
            "weights" multiplies their weights, "scores" their scores before the softmax, by `factor`.
        tokens: The image tokens, counted from 0; none means all of them.
        layers: Decoder layers; none means every layer with a softmax.
        heads: (layer, head) pairs; when there are some, `layers` is ignored.
        rows: "last" is the last row of the prompt and the row of each generated token; "question" and "after_image"
            are rows of the prompt.
        factor: For "weights" and "scores", ≥ 0.

    Raises:
        EditError: Another kind, or rows that are not offered.
    """

    kind: str = "knockout"
    tokens: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    heads: tuple[tuple[int, int], ...] = ()
    rows: str = "last"
    factor: float = 2.0

    def __post_init__(self) -> None:
        check_one_of("kind", self.kind, KINDS, EditError)
        check_one_of("rows", self.rows, ROWS, EditError)

    def edit(self, n_tokens: int) -> Edit:
        """The edit, for a prompt with `n_tokens` image tokens.

        Raises:
            EditError: A token beyond them, or a factor that is no number ≥ 0.
            SiteError: Layers or heads that are no numbers of 0 or more.
        """
        if beyond := [token for token in self.tokens if not 0 <= token < n_tokens]:
            raise EditError(f"the image has {n_tokens} tokens, counted from 0; got token {beyond[0]}.")
        keys = "image" if not self.tokens else image_mask(np.isin(np.arange(n_tokens), self.tokens))
        layers = self.layers or "all"
        site = (
            Site(heads=self.heads, queries=self.rows, keys=keys)
            if self.heads
            else Site(layers=layers, queries=self.rows, keys=keys)
        )
        steps = "all" if self.rows == "last" else "prefill"
        if self.kind == "weights":
            return ScaleWeights(site, self.factor, steps=steps)
        if self.kind == "scores":
            return ScaleScores(site, self.factor, steps=steps)
        return Knockout(site, mode="renormalise" if self.kind == "knockout" else "zero", steps=steps)

    def code(self, n_tokens: int) -> list[str]:
        """The lines of Python that build the edit as `edit`."""
        lines = []
        keys = '"image"'
        if self.tokens:
            lines.append(f"mask = np.isin(np.arange({n_tokens}), {_listed(self.tokens)})")
            keys = "interp.image_mask(mask)"
        where = (
            f"heads={_listed(self.heads)}"
            if self.heads
            else f"layers={_listed(self.layers) if self.layers else repr('all')}"
        )
        lines.append(f"site = interp.Site({where}, queries={self.rows!r}, keys={keys})")
        steps = "all" if self.rows == "last" else "prefill"
        name, option = {
            "knockout": ("Knockout", 'mode="renormalise"'),
            "zero": ("Knockout", 'mode="zero"'),
            "weights": ("ScaleWeights", f"factor={self.factor!r}"),
            "scores": ("ScaleScores", f"factor={self.factor!r}"),
        }[self.kind]
        return [*lines, f'edit = interp.{name}(site, {option}, steps="{steps}")']


def _listed(values: Sequence[object]) -> str:
    return repr(list(values))


def reproduction(
    model: Mapping[str, Any],
    sample: Sample,
    images: Sequence[str],
    prompt: Prompt,
    generate: int,
    *,
    step: int,
    layer: int,
    head: int | None,
    change: Change | None = None,
    n_tokens: int = 0,
) -> str:
    """A script that loads the model, reads the row that is shown into `row`, and makes the edit where there is one.

    It ends with `answers`, and with `edited` under an edit. It needs the image files under the names given.

    Args:
        model: The arguments of `interp.load`; the first is the model.
        sample: The question, its images and boxes.
        images: The image files' names.
        prompt: How the question is put.
        generate: How many tokens are generated at most.
        step: The generated token whose row is shown.
        layer: The layer shown.
        head: The head shown; None for the mean of all heads.
        change: The edit.
        n_tokens: Number of image tokens, which an edit of some of them needs.
    """
    opened = ", ".join([repr(model["model"]), *(f"{k}={v!r}" for k, v in model.items() if k != "model")])
    shown = f"image={images[0]!r}" if len(images) == 1 else f"images={list(images)!r}"
    boxes = f", boxes={[(b.x0, b.y0, b.x1, b.y1) for b in sample.boxes]!r}" if sample.boxes else ""
    edited = change is not None
    lines = [
        *(["import numpy as np", ""] if edited and change.tokens else []),
        "import interp",
        "",
        f"mllm = interp.load({opened})",
        f"sample = interp.Sample({shown}, question={sample.question!r}{boxes})",
        f"prompt = interp.{prompt!r}",
        'reads = [interp.Rows(interp.Site(queries="last", keys="image"))]',
        f"trace = mllm.trace([sample], prompt=prompt, reads=reads, generate={generate})",
        f"row = trace[0].rows.isel(step={step}, query=0).sel(layer={layer})  # (head, token)",
        'row = row.mean("head")' if head is None else f"row = row.sel(head={head})",
        "answers = trace.answers",
    ]
    if change is not None:
        lines += [
            "",
            *change.code(n_tokens),
            f"edited = mllm.answers([sample], prompt=prompt, edits=[edit], generate={generate})",
        ]
    return "\n".join(lines) + "\n"
