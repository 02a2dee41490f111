"""A model of `interp`, as it is or under a method, that answers the requests of lmms-eval. Needs lmms-eval."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
from PIL import Image

from interp.errors import StudyError
from interp.inputs.prompt import Prompt
from interp.inputs.sample import Sample
from interp.lmms_eval.method_arguments import method_of
from interp.methods import Plain
from interp.study import ModelSpec
from interp.tracing import Decoding

__all__ = ["InterpModel"]

AS_WRITTEN = Prompt(template="{question}", options="none")
"""lmms-eval writes the whole prompt; the model's own chat template stands around it."""
MOST_TOKENS = 1024
"""The largest number of tokens where a task names none, as in lmms-eval."""
AT_ONCE = 64
"""Requests whose images are held at once."""


class InterpModel(lmms):
    """The model that `lmms-eval --model interp --model_args pretrained=…,method=…` makes.

    Args:
        pretrained: "organism", a Hugging Face id or a local folder.
        method: "plain", "vgrefine", "vgrefine_paper", "pai", "adaptvis", "hgai" or "vicrop", with published defaults.
        device, dtype, revision, adapter: As for `interp.load`; with the adapter "answers_only" a model without a map
            can answer, under the method "plain" alone.
        heads: VGRefine's heads as "layer-head+layer-head"; by default published ones, or ranked on `choose_on`.
        layers: The layers that VGRefine masks, as "16+17"; by default the published or the chosen one.
        choose_on: Data with boxes whose validation split heads and layer are chosen on.
        n_validation: The largest number of samples to choose on.
        out: The folder for runs that choose heads.
        batch_size: Requests in one pass.
        seed: The seed of drawn tokens, used where a task asks for a temperature.
        failures: "raise", or "empty": a question that cannot be answered gets an empty answer, which counts as wrong.
        **others: What lmms-eval passes to every model; None is ignored.

    Raises:
        StudyError: A method or an argument is unknown, or does not fit.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = "organism",
        method: str = "plain",
        *,
        device: str = "cpu",
        dtype: str = "float32",
        revision: str | None = None,
        adapter: str | None = None,
        heads: str = "",
        layers: str | int = "",
        choose_on: str = "natural",
        n_validation: int = 80,
        out: str = "runs",
        batch_size: int | str = 8,
        seed: int = 0,
        failures: str = "raise",
        **others: Any,
    ) -> None:
        super().__init__()
        _check(failures, others)
        spec = ModelSpec(pretrained, revision=revision, device=device, dtype=dtype, adapter=adapter)
        self.mllm = spec.load()
        self.method = method_of(
            method,
            spec,
            self.mllm,
            heads=heads,
            layers=str(layers),
            choose_on=choose_on,
            n=n_validation,
            out=out,
        )
        self.limit, self.draw_seed, self.failures = int(batch_size), seed, failures

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answers to lmms-eval's requests, in their order."""
        found: list[str] = []
        for start in range(0, len(requests), AT_ONCE):
            some = requests[start : start + AT_ONCE]
            found += self._answers([request.args for request in some])
        return found

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refused: tasks that compare log-probabilities are run by an `interp.Benchmark`."""
        raise StudyError(
            "the model interp generates answers. For log-probabilities of options use an interp.Benchmark with "
            "scorer=OptionLogProbability()."
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refused: a sample is one question."""
        raise StudyError(
            "the model interp answers one question at a time; leave tasks of several rounds out."
        )

    def _answers(self, arguments: Sequence[tuple[Any, ...]]) -> list[str]:
        """Texts of requests; those with the same settings of generation are answered together."""
        texts: list[str] = [""] * len(arguments)
        groups: dict[str, list[int]] = {}
        for place, (_, settings, *_rest) in enumerate(arguments):
            groups.setdefault(repr(sorted(settings.items(), key=str)), []).append(place)
        for places in groups.values():
            settings = arguments[places[0]][1]
            samples = [self._sample(*arguments[place]) for place in places]
            for place, text in zip(places, self._texts(samples, settings), strict=True):
                texts[place] = _until(text, settings.get("until"))
                self.cache_hook.add_partial("generate_until", arguments[place][:2], texts[place])
        return texts

    def _sample(
        self, context: str, _: Mapping[str, Any], to_visual: Any, number: int, task: str, split: str
    ) -> Sample:
        """A request as a sample: its images, and its whole prompt as the question."""
        seen = to_visual(self.task_dict[task][split][number]) if to_visual is not None else []
        if not seen or not all(isinstance(one, Image.Image) for one in seen):
            raise StudyError(
                f"the model interp answers questions on images; document {number} of {task} has "
                f"{[type(one).__name__ for one in seen] or 'none'}. Leave tasks of text, audio or video out."
            )
        images = cast(list[Any], list(seen))
        return Sample(images=images, question=context, id=f"{task} {split} {number}")

    def _texts(self, samples: list[Sample], settings: Mapping[str, Any]) -> list[str]:
        try:
            return self._generated(samples, settings)
        except StudyError:
            raise
        except Exception as error:
            if self.failures == "raise":
                raise
            if len(samples) > 1:
                return [text for sample in samples for text in self._texts([sample], settings)]
            print(f"{samples[0].id} gets an empty answer: {type(error).__name__}: {error}")
            return [""]

    def _generated(self, samples: list[Sample], settings: Mapping[str, Any]) -> list[str]:
        n = int(settings.get("max_new_tokens") or MOST_TOKENS)
        temperature = float(settings.get("temperature") or 0)
        if int(settings.get("num_beams") or 1) > 1:
            raise StudyError(
                f"the model interp takes the likeliest token or draws one; got num_beams={settings['num_beams']}. Run "
                "lmms-eval with --gen_kwargs num_beams=1."
            )
        options: dict[str, Any] = {"prompt": AS_WRITTEN, "batch_size": self.limit, "progress": False}
        if self.method != Plain():
            if temperature > 0:
                raise StudyError(
                    f"{self.method.name} decodes greedily; the task asks for temperature {temperature}. Leave method= "
                    "out, or run lmms-eval with --gen_kwargs temperature=0."
                )
            answers = self.method.answer(self.mllm, samples, max_new_tokens=n, **options)
            return [answer.text or "" for answer in answers]
        drawn = (
            {} if temperature == 0 else {"seed": self.draw_seed, "decoding": _decoding(temperature, settings)}
        )
        return [text or "" for text in self.mllm.answers(samples, generate=n, **options, **drawn)]


def _decoding(temperature: float, settings: Mapping[str, Any]) -> Decoding:
    top_p = settings.get("top_p")
    return Decoding(temperature=temperature, top_p=None if top_p is None or top_p >= 1 else float(top_p))


def _until(text: str, stops: Any) -> str:
    """The text up to the first of the stops, without them."""
    for stop in [stops] if isinstance(stops, str) else stops or []:
        text = text.partition(stop)[0] if stop else text
    return text


def _check(failures: Any, others: Mapping[str, Any]) -> None:
    """Raises `StudyError` for unknown arguments, several processes, or an unknown value of `failures`."""
    known = {"max_batch_size", "device_map", "system_prompt"}
    if unknown := sorted(name for name, value in others.items() if value is not None and name not in known):
        raise StudyError(
            f"the model interp has no argument {', '.join(unknown)}; docs/benchmark_study.md lists them."
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise StudyError("the model interp runs in one process; start lmms-eval without accelerate launch.")
    if failures not in ("raise", "empty"):
        raise StudyError(f'failures is "raise" or "empty"; got {failures!r}.')
