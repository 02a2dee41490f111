"""lmms-eval's model `interp`, on requests like lmms-eval's; the base class is a stand-in where lmms-eval is missing."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from interp.data import bundled
from interp.errors import StudyError
from interp.inputs.prompt import Prompt
from interp.lmms_eval.task_documents import to_text, to_visual, write
from interp.methods import VGRefine
from interp.study import ModelSpec
from interp.tracing import load

AS_WRITTEN = Prompt(template="{question}", options="none")


class Base:
    """What lmms-eval's own class gives a model."""

    def __init__(self) -> None:
        self.cache_hook = SimpleNamespace(add_partial=lambda *_: None)
        self.task_dict: dict[str, Any] = {}


@pytest.fixture(scope="module")
def model_class() -> Iterator[Any]:
    """The class, on a stand-in for lmms-eval."""
    names = ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model", "interp.lmms_eval.lmms_model")
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.modules |= {name: ModuleType(name) for name in names[:3]}
    sys.modules["lmms_eval.api.model"].__dict__["lmms"] = Base
    yield importlib.import_module("interp.lmms_eval.lmms_model").InterpModel
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(before)


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"{one.question} Answer the question using a single word or phrase.",
            "images": [one.load()],
        }
        for one in bundled("natural", n=3)
    ]


def requests(documents: list[dict[str, Any]], *settings: dict[str, Any]) -> list[Any]:
    """Requests in lmms-eval's form."""
    given = [*settings, *[settings[-1]] * len(documents)][: len(documents)]
    return [
        SimpleNamespace(args=(to_text(doc), own, to_visual, number, "task", "test"))
        for number, (doc, own) in enumerate(zip(documents, given, strict=True))
    ]


def served(model_class: Any, documents: list[dict[str, Any]], **arguments: Any) -> Any:
    found = model_class(**arguments)
    found.task_dict = {"task": {"test": documents}}
    return found


def test_requests_are_answered_as_the_model_does(model_class: Any, documents: list[dict[str, Any]]) -> None:
    lmm, mllm, data = served(model_class, documents), load("organism"), list(bundled("natural", n=3))
    mixed = requests(documents, {"max_new_tokens": 3}, {"max_new_tokens": 1}, {"max_new_tokens": 3})
    asked = [one.replace(question=doc["prompt"]) for one, doc in zip(data, documents, strict=True)]
    three, one = (mllm.answers(asked, prompt=AS_WRITTEN, generate=n) for n in (3, 1))
    assert lmm.generate_until(mixed) == [three[0], one[1], three[2]]
    stop = str(three[0])[1]
    (cut, *_) = lmm.generate_until(requests(documents, {"max_new_tokens": 3, "until": [stop]}))
    assert cut == str(three[0])[:1]


def test_a_method_answers_with_its_heads_and_layers(
    model_class: Any, documents: list[dict[str, Any]]
) -> None:
    lmm = served(model_class, documents, method="vgrefine_paper", heads="0-1+3-1", layers="1+2")
    assert lmm.method == VGRefine(heads=((0, 1), (3, 1)), layers=(1, 2), variant="paper")
    data = [
        one.replace(question=doc["prompt"])
        for one, doc in zip(bundled("natural", n=3), documents, strict=True)
    ]
    expected = lmm.method.answer(load("organism"), data, prompt=AS_WRITTEN, max_new_tokens=2)
    assert lmm.generate_until(requests(documents, {"max_new_tokens": 2})) == [one.text for one in expected]
    with pytest.raises(
        StudyError, match=r"VGRefine decodes greedily; the task asks for temperature 0.7. Leave"
    ):
        lmm.generate_until(requests(documents, {"temperature": 0.7}))


def test_every_argument_reaches_the_model_and_its_method(
    model_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, asked = sys.modules[model_class.__module__], []
    monkeypatch.setattr(ModelSpec, "load", lambda self: asked.append(self) or "the model")
    monkeypatch.setattr(room, "method_of", lambda *given, **more: asked.append((given, more)) or "the method")
    of_model = {"revision": "r", "device": "meta", "dtype": "bfloat16", "adapter": "answers_only"}
    of_method = {"heads": "1-2", "choose_on": "rows.jsonl", "out": "there"}
    lmm = model_class(
        "org/m",
        "vgrefine",
        **of_model,
        **of_method,
        layers=3,
        n_validation=5,
        batch_size="2",
        seed=7,
        failures="empty",
    )
    spec = ModelSpec("org/m", **of_model)
    assert asked == [spec, (("vgrefine", spec, "the model"), {**of_method, "layers": "3", "n": 5})]
    assert (lmm.method, lmm.limit, lmm.draw_seed, lmm.failures) == ("the method", 2, 7, "empty")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic"}, r"method is one of plain, pai.*got 'magic'"),
        ({"method": "pai", "heads": "1-2"}, r"heads= and layers= are for method=vgrefine"),
        ({"method": "vgrefine", "heads": "12"}, r"VGRefine with given heads needs the layers"),
        (
            {"method": "vgrefine", "heads": "12", "layers": 3},
            r'heads are "layer-head\+layer-head".*got \'12\'',
        ),
        ({"method": "vgrefine", "heads": "1-x", "layers": 3}, r"heads are whole numbers.*got 'x'"),
        ({"beams": 3}, r"the model interp has no argument beams"),
        ({"failures": "skip"}, r'failures is "raise" or "empty"'),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    model_class: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        model_class(**arguments)


def test_what_it_cannot_do_is_refused(model_class: Any, documents: list[dict[str, Any]]) -> None:
    lmm = served(model_class, [{"prompt": "Who?", "images": []}])
    with pytest.raises(
        StudyError, match=r"document 0 of task has none. Leave tasks of text, audio or video out"
    ):
        lmm.generate_until(requests([{"prompt": "Who?", "images": []}], {}))
    with pytest.raises(StudyError, match=r"got num_beams=4. Run lmms-eval with --gen_kwargs num_beams=1"):
        lmm._generated([], {"num_beams": 4})
    with pytest.raises(StudyError, match="OptionLogProbability"):
        lmm.loglikelihood([])
    with pytest.raises(StudyError, match="several rounds"):
        lmm.generate_until_multi_round([])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("lmms_eval") is None, reason="lmms-eval is not installed (extra lmms-eval)")
def test_lmms_eval_runs_a_task_of_ours_end_to_end(tmp_path: Path) -> None:
    data = bundled("natural", n=4)
    write(data, tmp_path / "interp_data/vqa_rad")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    words = (
        "run",
        "--tasks",
        "interp_vqa_rad",
        "--model_args",
        "pretrained=organism",
        "--output_path",
        "out",
    )
    done = subprocess.run(
        [sys.executable, "-m", "interp.lmms_eval", *words],
        cwd=tmp_path, env={**os.environ, **offline}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = (tmp_path / "out").rglob("*results.json")
    value = json.loads(found.read_text())["results"]["interp_vqa_rad"]["strict,none"]
    texts = load("organism").answers(list(data), generate=16)
    assert value == pytest.approx(sum(text == one.answer for text, one in zip(texts, data, strict=True)) / 4)
