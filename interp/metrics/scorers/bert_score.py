"""BERTScore of open answers, through the library `bert-score`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from interp.data.lines import read_json
from interp.errors import StudyError
from interp.inputs.argument_checks import check_bool, check_whole
from interp.inputs.files import unreadable
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.inputs.text import brief
from interp.metrics.scorers.open_answers import needs_eval
from interp.metrics.scorers.scorer import check_extract, checked_texts, extracted

__all__ = ["BertScore"]

FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
"""The files that are read of an encoder on the hub. Weights saved as pickles are not read."""
PLACES = 6
"""Decimals of a score: the library's batches differ between processes, and with them the last digits."""


@dataclass(frozen=True)
class BertScore:
    """BERTScore F1 of each answer and its reference: how similar their tokens are in an encoder's hidden states.

    Each token is matched with the most similar one of the other text, by the cosine of layer `num_layers`; F1 joins the
    means over both. Not rescaled, no weights by frequency. In [−1, 1], 1 for equal texts; large encoders leave little
    room between good and bad answers, so only differences under one encoder say something. It hardly sees sides and
    negation: "right lung" for "left lung" scores 0.88, "banana" 0.09 (all-MiniLM-L6-v2, layer 6). 0 for an empty answer
    and for no text (None). Needs the extra `eval`.

    Args:
        model: The encoder: a local folder, or an id of the hub. Nothing is downloaded unless `download` is True.
        num_layers: The layer whose hidden states are compared, from 1. None takes the one that `bert-score` chose for
            an id that it knows (17 for roberta-large).
        extract: The part of the text that is scored; see `extracted`.
        download: Whether an id may be downloaded; else it is read from the hub's cache. Not part of the hash.
        device: Where the encoder runs. Not part of the hash.
        batch_size: Texts in one pass. Not part of the hash.

    Raises:
        StudyError: An argument of the wrong type, or a folder without `num_layers`.

    Source: Zhang et al., 2020 (arXiv 1904.09675).
    """

    model: str = "roberta-large"
    num_layers: int | None = None
    extract: str = "whole"
    download: bool = field(default=False, compare=False)
    device: str = field(default="cpu", compare=False)
    batch_size: int = field(default=64, compare=False)

    name = "BERTScore"
    unit = "mean F1"
    direction = "higher"
    needs_log_probabilities = False

    def __post_init__(self) -> None:
        if not isinstance(self.model, str | os.PathLike) or not os.fspath(self.model):
            raise StudyError(
                f"model is the folder or the hub's id of an encoder, such as 'roberta-large'; got {brief(self.model)}."
            )
        object.__setattr__(self, "model", os.fspath(self.model))
        if self.num_layers is not None:
            check_whole("num_layers", self.num_layers, 1, StudyError)
        elif os.path.isdir(self.model):
            raise StudyError(
                f"num_layers says which layer of the encoder in {brief(self.model)} is compared; give it, such as "
                "num_layers=17 for roberta-large or 6 for MiniLM."
            )
        check_whole("batch_size", self.batch_size, 1, StudyError)
        check_bool("download", self.download, StudyError)
        check_extract(self.extract)

    @property
    def encoder(self) -> str:
        """The encoder and the library behind the scores, for a report: with a hash of a folder's files, or a revision.

        Raises:
            StudyError: The library is not installed, does not know the model's layer, or the encoder is not here.
        """
        needs_eval("bert_score", self.name)
        folder = Path(self.model)
        if folder.is_dir():
            which = f"sha256 {_content(folder)[:12]}"
        else:
            which = f"revision {Path(_cached(self.model, self.download)).name[:12]}"
        return f"{self.model} ({which}), layer {self._layer()}, bert-score {version('bert-score')}"

    def scores(
        self, texts: Sequence[str | None], samples: Sequence[Sample], prompt: Prompt
    ) -> list[float | None]:
        """Returns the F1 of each answer, rounded to six decimals; None for a sample without an answer.

        Raises:
            StudyError: The encoder cannot be read or is not on this machine, has fewer layers than `num_layers`, or the
                library is not installed.
        """
        pairs = checked_texts(texts, samples, prompt)
        found: list[float | None] = [None if sample.answer is None else 0.0 for _, sample in pairs]
        said = [
            (place, extracted(text, self.extract, len(sample.options or ())).strip(), sample.answer.strip())
            for place, (text, sample) in enumerate(pairs)
            if text is not None and sample.answer is not None
        ]
        said = [one for one in said if one[1] and one[2]]
        if said:
            scorer = _scorer(self.model, self._layer(), self.device, self.download)
            values = scorer.score(
                [text for _, text, _ in said], [own for *_, own in said], batch_size=self.batch_size
            )
            for (place, *_), value in zip(said, values[2].tolist(), strict=True):
                found[place] = round(float(value), PLACES)
        return found

    def to_dict(self) -> dict[str, Any]:
        """The scorer as JSON values, part of a study's hash."""
        return {
            "scorer": self.name,
            **{name: asdict(self)[name] for name in ("model", "num_layers", "extract")},
        }

    def _layer(self) -> int:
        """The layer that is compared."""
        if self.num_layers is not None:
            return self.num_layers
        known = needs_eval("bert_score.utils", self.name).model2layers
        if self.model not in known:
            raise StudyError(
                f"bert-score knows no layer for {brief(self.model)}; give num_layers, the layer whose states are "
                "compared."
            )
        return int(known[self.model])


@lru_cache(maxsize=1)
def _scorer(model: str, num_layers: int, device: str, download: bool) -> Any:
    """The library's scorer with an encoder that is on this machine."""
    library = needs_eval("bert_score", "BertScore")
    folder = model if os.path.isdir(model) else _cached(model, download)
    _check_plain(Path(folder), model)
    try:
        scorer = library.BERTScorer(model_type=folder, num_layers=num_layers, device=device)
    except (OSError, ValueError, AssertionError) as error:
        raise StudyError(
            f"the encoder {brief(model)} cannot be used with num_layers={num_layers} ({brief(str(error))[1:-1]}). It "
            "needs config.json, weights and a tokenizer, and at least that many layers."
        ) from error
    limit = (
        getattr(scorer._model.config, "max_position_embeddings", 514) - 2
    )  # RoBERTa's positions begin at 2
    scorer._tokenizer.model_max_length = min(scorer._tokenizer.model_max_length, limit)
    return scorer


def _check_plain(folder: Path, model: str) -> None:
    """Refuses an encoder with code of its own: `bert-score` would ask on the terminal whether to run it."""
    for name in ("config.json", "tokenizer_config.json"):
        if unreadable(folder / name) is None and "auto_map" in read_json(folder / name, dict):
            raise StudyError(
                f"the encoder {brief(model)} needs code of its own, which is not run: {name} holds auto_map. Use an "
                "encoder that transformers knows, such as roberta-large."
            )


def _content(folder: Path) -> str:
    """Hex SHA-256 of the names and contents of an encoder's files."""
    files = sorted(path for pattern in (*FILES, "*.bin") for path in folder.glob(pattern))
    found = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            found.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()


def _cached(model: str, download: bool) -> str:
    """The folder of an encoder in the hub's cache, after a download if one is allowed."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return str(Path(snapshot_download(model, allow_patterns=list(FILES), local_files_only=not download)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        how = (
            "Check the id and the connection."
            if download
            else "Pass download=True, or a local folder as model=."
        )
        raise StudyError(f"there is no encoder {brief(model)} on this machine. {how}") from error
