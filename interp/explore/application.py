"""The events of the explorer's page, and what each one changes."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from dash import Dash, Input, Output, State, ctx, html, no_update
from PIL import Image

from interp.errors import ImageError, InterpError, SampleError
from interp.explore.exploration import Change, Exploration, Reading, reproduction
from interp.explore.screen import empty_figure, head_figure, image_figure, page, token_at, tokens_in
from interp.inputs.images import load_image
from interp.inputs.sample import Sample

__all__ = ["application"]

MOST_BYTES = 64 * 2**20
"""The largest request, in bytes; an image file becomes a third larger in a request."""
MOST_SAMPLES = 32
ALL_HEADS = -1


@dataclass(eq=False)
class _Session:
    """The images and samples that the page's events use; the page itself holds only their names."""

    exploration: Exploration
    model: Mapping[str, Any]
    images: dict[str, tuple[tuple[Any, ...], tuple[str, ...]]] = field(default_factory=dict)
    samples: dict[str, tuple[Sample, tuple[str, ...]]] = field(default_factory=dict)

    def keep(self, store: dict[str, Any], value: Any) -> str:
        """Keeps a value under a new name, and drops the oldest values beyond `MOST_SAMPLES`."""
        name = uuid4().hex
        store[name] = value
        while len(store) > MOST_SAMPLES:
            store.pop(next(iter(store)))
        return name

    def keep_images(self, contents: Sequence[str], names: Sequence[str]) -> str:
        """Keeps uploaded files, and returns their name.

        Raises:
            ImageError: A file that is not an image.
        """
        read = tuple(_decoded(content, name) for content, name in zip(contents, names, strict=True))
        return self.keep(self.images, (read, tuple(Path(name).name for name in names)))

    def keep_sample(self, files: str | None, question: str) -> str:
        """Keeps the sample with this question, and returns its name.

        Raises:
            SampleError: No image was chosen, or the question cannot be used.
        """
        if files not in self.images:
            raise SampleError("choose an image first.")
        images, names = self.images[files]
        return self.keep(self.samples, (Sample(images=images, question=question), names))

    def reading(self, sample: str, change: Change | None = None) -> Reading:
        """The reading of a kept sample."""
        return self.exploration.read(self.sample(sample), change)

    def sample(self, name: str) -> Sample:
        """The sample with this name.

        Raises:
            SampleError: A sample that is no longer kept.
        """
        if name not in self.samples:
            raise SampleError("the question is no longer kept. Ask again.")
        return self.samples[name][0]


def application(exploration: Exploration, model: Mapping[str, Any], sample: Sample | None = None) -> Dash:
    """The page with its events, for any WSGI server.

    Args:
        exploration: The model and its readings.
        model: The arguments of `interp.load`, "model" among them, for the code on the page.
        sample: The sample that is shown first; None for an empty page.
    """
    session = _Session(exploration, model)
    files = None
    if sample is not None:
        names = tuple(_file_name(image, i) for i, image in enumerate(sample.images))
        files = session.keep(session.images, (tuple(sample.images), names))
    app = Dash(
        "interp.explore",
        title="interp explorer",
        update_title="",
        assets_folder=str(Path(__file__).parent / "assets"),
    )
    app.server.config["MAX_CONTENT_LENGTH"] = MOST_BYTES
    app.layout = page(
        str(model["model"]),
        "" if sample is None else sample.question,
        exploration.layers,
        exploration.mllm.n_heads,
        exploration.generate,
        files,
    )
    _asking(app, session)
    _choosing(app, session)
    _choosing_heads(app, session)
    _showing(app, session)
    _editing(app, session)
    return app


def _asking(app: Dash, session: _Session) -> None:
    """Adds the events of choosing files and asking a question."""

    @app.callback(
        Output("files", "data"), Output("names", "children"),
        Input("upload", "contents"), State("upload", "filename"), prevent_initial_call=True,
    )  # fmt: skip
    def upload(contents: list[str] | None, names: list[str] | None) -> tuple[Any, str]:
        """Keeps the chosen files."""
        if not contents or not names:
            return no_update, ""
        try:
            return session.keep_images(contents, names), ", ".join(names)
        except InterpError as error:
            return None, str(error)

    @app.callback(
        Output("sample", "data"), Output("answer", "children"), Output("likely", "children"),
        Output("step", "options"), Output("step", "value"), Output("image", "options"), Output("image", "value"),
        Output("image-box", "hidden"), Output("change", "data"), Output("effect", "children"),
        Output("message", "children"),
        Input("ask", "n_clicks"), State("files", "data"), State("question", "value"),
        running=[(Output("ask", "disabled"), True, False)],
    )  # fmt: skip
    def ask(clicks: int | None, files: str | None, question: str | None) -> tuple[Any, ...]:
        """Runs the model once, and clears earlier selections and edits."""
        if not clicks and files is None:
            return (no_update,) * 11
        try:
            name = session.keep_sample(files, question or "")
            reading = session.reading(name)
        except InterpError as error:
            return (*(no_update,) * 10, str(error))
        steps = [{"label": _shown_word(word), "value": i} for i, word in enumerate(reading.words)]
        n_images = len(session.sample(name).sizes)
        likely = [html.Li(f"{_shown_word(word)} {share:.3f}") for word, share in reading.likely]
        said = _answer_text(reading.answer, reading.log_probability)
        return name, said, likely, steps, 0, list(range(n_images)), 0, n_images < 2, None, None, ""


def _choosing(app: Dash, session: _Session) -> None:
    """Adds the events of selecting tokens by a click or a region."""

    @app.callback(
        Output("chosen", "data"), Output("map", "clickData"), Output("map", "selectedData"),
        Input("map", "clickData"), Input("map", "selectedData"), Input("clear", "n_clicks"),
        Input("invert", "n_clicks"), Input("sample", "data"),
        State("chosen", "data"), State("image", "value"), prevent_initial_call=True,
    )  # fmt: skip
    def choose(
        click: Any, selected: Any, clear: Any, invert: Any, name: str | None, chosen: list[int], image: int
    ) -> tuple[Any, ...]:
        """Toggles the token under a click, adds those of a region, inverts the selection or clears it."""
        why = {one["prop_id"] for one in ctx.triggered}
        if name is None or why & {"clear.n_clicks", "sample.data"}:
            return [], None, None
        tokens = session.reading(name).tokens
        if "invert.n_clicks" in why:
            return sorted({*range(tokens.n)} - {*chosen}), None, None
        if "map.selectedData" in why and (found := tokens_in(selected)):
            return sorted({*chosen} | {*found}), no_update, None
        if "map.clickData" in why and click:
            point = click["points"][0]
            one = token_at(tokens, float(point["x"]), float(point["y"]), image)
            return (no_update if one is None else sorted({*chosen} ^ {one})), None, no_update
        return no_update, no_update, no_update


def _choosing_heads(app: Dash, session: _Session) -> None:
    """Adds the events of clicking a head, and of adding it to the edit."""

    @app.callback(
        Output("layer", "value"), Output("head", "value"), Input("heads", "clickData"), State("sample", "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    def choose_head(click: Any, name: str | None) -> tuple[Any, Any]:
        """Selects the layer and the head of a cell."""
        if not click or name is None:
            return no_update, no_update
        point = click["points"][0]
        return session.reading(name).layers[int(point["y"])], int(point["x"])

    @app.callback(
        Output("pairs", "value"), Input("add", "n_clicks"), State("pairs", "value"), State("layer", "value"),
        State("head", "value"), prevent_initial_call=True,
    )  # fmt: skip
    def add_head(clicks: Any, pairs: list[str], layer: int, head: int) -> Any:
        """Adds the head that is shown to the heads of the edit."""
        return no_update if head == ALL_HEADS else [*dict.fromkeys([*pairs, f"{layer}.{head}"])]


def _showing(app: Dash, session: _Session) -> None:
    """Adds the event that draws the map, the heads and the code of the selection."""

    @app.callback(
        Output("map", "figure"), Output("heads", "figure"), Output("about", "children"), Output("tokens", "children"),
        Output("code", "children"),
        Input("sample", "data"), Input("step", "value"), Input("image", "value"), Input("layer", "value"),
        Input("head", "value"), Input("relative", "value"), Input("chosen", "data"), Input("change", "data"),
        Input("which", "value"),
    )  # fmt: skip
    def show(
        name: str | None, step: int, image: int, layer: int, head: int, relative: list[str], chosen: list[int],
        change: Any, which: str,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Draws the selection."""
        if name is None or name not in session.samples:
            return empty_figure(), empty_figure(), "", "", ""
        after = _change(change) if which == "after" else None
        reading, sample = session.reading(name, after), session.sample(name)
        step = min(step or 0, len(reading.words) - 1)
        one = None if head == ALL_HEADS else head
        values, about = _map(session, sample, reading, step, layer, one, bool(relative) and after is None)
        picture = image_figure(sample, reading.tokens, values, chosen, image)
        what = _counted(len(chosen)) if chosen else "all image tokens"
        title = f"Share of the row on {what}"
        heads = head_figure(reading.head_shares(step, tuple(chosen)), reading.layers, (layer, one), title)
        edited = f"The edit takes {what}." + (
            "" if chosen else " Click tokens or drag a region to choose some."
        )
        code = reproduction(
            session.model, sample, session.samples[name][1], session.exploration.prompt, session.exploration.generate,
            step=step, layer=layer, head=one, change=_change(change), n_tokens=reading.tokens.n,
        )  # fmt: skip
        return picture, heads, about, edited, code


def _editing(app: Dash, session: _Session) -> None:
    """Adds the event of running an edit."""

    @app.callback(
        Output("change", "data", allow_duplicate=True), Output("effect", "children", allow_duplicate=True),
        Output("which", "value"), Output("refused", "children"),
        Input("run", "n_clicks"), State("sample", "data"), State("chosen", "data"), State("kind", "value"),
        State("factor", "value"), State("rows", "value"), State("layers", "value"), State("pairs", "value"),
        running=[(Output("run", "disabled"), True, False)], prevent_initial_call=True,
    )  # fmt: skip
    def run(
        clicks: Any, name: str | None, chosen: list[int], kind: Any, factor: float | None, rows: str,
        layers: list[int], pairs: list[str],
    ) -> tuple[Any, ...]:  # fmt: skip
        """Runs the model under the edit; shows answers and probabilities before and after."""
        if name is None:
            return no_update, no_update, no_update, "ask a question first."
        given = {
            "kind": kind,
            "tokens": chosen,
            "layers": layers,
            "heads": pairs,
            "rows": rows,
            "factor": factor,
        }
        try:
            change, before = _change(given), session.reading(name)
            after = session.reading(name, change)
            kept = session.exploration.log_probability(session.sample(name), before.answer, change)
        except InterpError as error:
            return no_update, no_update, no_update, str(error)
        return given, _effect(before, after, kept), "after", ""


def _map(
    session: _Session,
    sample: Sample,
    reading: Reading,
    step: int,
    layer: int,
    head: int | None,
    relative: bool,
) -> tuple[np.ndarray, str]:
    """The map that is shown, and its description."""
    which = "mean of all heads" if head is None else f"head {head}"
    if relative and step == 0:
        rows = session.exploration.relative(sample, per_head=head is not None).sel(layer=layer)
        quotient = rows if head is None else rows.sel(head=head)
        about = f"Layer {layer}, {which}, divided by the same under the generic prompt."
        return np.asarray(quotient.values, float), about
    values = reading.map(step, layer, head)
    note = " Only the first token's row can be divided." if relative else ""
    return values, f"Layer {layer}, {which}: {values.sum():.3f} of the row is on the image.{note}"


def _change(given: Mapping[str, Any] | None) -> Change | None:
    """The edit from the page's values; None without one."""
    if given is None:
        return None
    pairs = tuple((int(layer), int(head)) for layer, head in (pair.split(".") for pair in given["heads"]))
    factor = math.nan if given["factor"] is None else float(given["factor"])
    tokens, layers = tuple(given["tokens"]), tuple(sorted(given["layers"]))
    return Change(given["kind"], tokens, layers, pairs, given["rows"], factor)


def _effect(before: Reading, after: Reading, kept: float) -> list[Any]:
    """The answers before and after the edit, and the probability of the first answer after it."""
    rows = [
        ("before", before.answer, before.log_probability),
        ("after the edit", after.answer, after.log_probability),
        ("the first answer, after the edit", before.answer, kept),
    ]
    body = [
        html.Tr([html.Th(what, scope="row"), html.Td(_answer_text(answer, value))])
        for what, answer, value in rows
    ]
    first = ", ".join(f"{_shown_word(word)} {share:.3f}" for word, share in after.likely)
    return [
        html.Table(html.Tbody(body)),
        html.P(f"Likeliest first tokens after the edit: {first}", className="soft"),
    ]


def _answer_text(answer: str | None, log_probability: float) -> str:
    """An answer with its probability, as text."""
    if answer is None:
        return "no answer: the thought did not end"
    probability = math.exp(log_probability) if not math.isnan(log_probability) else None
    said = f"“{answer}”" if (answer or "").strip() else "(nothing)"
    return said + ("" if probability is None else f", probability {probability:.3f}")


def _counted(n: int) -> str:
    return "1 chosen token" if n == 1 else f"{n} chosen tokens"


def _shown_word(word: str) -> str:
    """A token as text; white space alone is made visible."""
    return word.strip() or repr(word)


def _decoded(content: str, name: str) -> Any:
    """An uploaded file as an image.

    Raises:
        ImageError: A file that is not an image or cannot be read.
    """
    try:
        data = base64.b64decode(content.split(",", 1)[1], validate=True)
        with Image.open(BytesIO(data)) as opened:
            opened.load()
            return load_image(opened)
    except (ValueError, IndexError, OSError, Image.DecompressionBombError) as error:
        if isinstance(error, InterpError):
            raise
        raise ImageError(
            f"{Path(name).name} cannot be read as an image ({error}). Choose a PNG or JPEG file."
        ) from None


def _file_name(image: Any, i: int) -> str:
    """The name of an image in the code: its path, or a name to save it under."""
    return str(image) if isinstance(image, str | Path) else f"image{i}.png"
