# ruff: noqa: E501 - a row of a table is a line
"""Advice in error messages works: each is made to appear, followed, and seen to help.

A row of `ADVICE` holds a call that fails, the words of the message that advise, and the call that follows them.
What is named in any message (functions, arguments, extras, pages, options) must exist: see `test_what_…`.
"""

from __future__ import annotations

import ast
import builtins
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import interp
from interp import conformance, data, indicators, methods, metrics, stats, study
from interp.conformance.tiny import tiny
from interp.data import Samples
from interp.errors import InterpError
from interp.run import as_part, make_plan
from tests.advice import benchmarks as of_benchmarks
from tests.advice import builder as of_builder
from tests.advice import circuits as of_circuits
from tests.advice import commands as of_commands
from tests.advice import data as of_data
from tests.advice import lenses as of_lenses
from tests.advice import loading as of_loading
from tests.advice import maps as of_maps
from tests.advice import masks as of_masks
from tests.advice import mechanisms as of_mechanisms
from tests.advice import models as of_models
from tests.advice import people as of_people
from tests.advice import readers as of_readers
from tests.advice import refusals as of_refusals
from tests.advice import study as of_study
from tests.advice import tracing as of_tracing
from tests.advice import videos as of_videos
from tests.study.planted import sample as planted_sample
from tests.study.planted import samples as planted_samples
from tests.study.planted import sweep
from tests.study.planted_heads import ranking

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("unchecked")

INPUTS = [
    ("Sample(PIC, '?', boxes=Box(1, 2, 3, 4))", "boxes=[(1.0, 2.0, 3.0, 4.0)]", "Sample(PIC, '?', boxes=[(1.0, 2.0, 3.0, 4.0)])"),
    ("Sample(PIC, '?', boxes=[1, 2, 3, 4])", "boxes=[(x0, y0, x1, y1)]", "Sample(PIC, '?', boxes=[(1, 2, 3, 4)])"),
    ("Box(10, 20, 5, 8)", "(x, y, x + width, y + height)", "Box(10, 20, 10 + 5, 20 + 8)"),
    ("Box(1, 2, 99, 99).check_inside((50, 40))", "box.clip(50, 40)", "Box(1, 2, 99, 99).clip(50, 40).check_inside((50, 40))"),
    ("Sample(PIC, images=[PIC])", "image= for one image", "Sample(image=PIC)"),
    ("Sample(images=PIC)", "for one image pass image=", "Sample(image=PIC)"),
    ("Sample()", "image=, images=[…] or video=", "Sample(images=[PIC])"),
    ("Sample.from_dict(STORED | {'colour': 1})", "Put extras under meta", "Sample.from_dict(STORED | {'meta': {'colour': 1}})"),
    ("Prompt('{question} {x}')", "{question} and no other field", "Prompt('{question}')"),
    ("Prompt('{')", "Write {{ and }}", "Prompt('{{')"),
    ("Prompt(options='x')", '"letters" or "none"', "Prompt(options='none')"),
    ("PAPER_PROMPT.text(Sample(PIC))", "GENERIC_PROMPT", "GENERIC_PROMPT.text(Sample(PIC))"),
    ("PAPER_PROMPT.text(MANY)", 'options="none"', "Prompt(options='none').text(MANY)"),
    ("Target('yes', tokens=2)", "Leave tokens= out", "Target('yes')"),
    ("Target(5)", "diff(a, b)", "Target(diff('yes', 'no'))"),
    ("diff('yes', 'yes')", "two different answers", "diff('yes', 'no')"),
    ("tokens.positions('x')", "interp.word(…)", "tokens.positions(interp.word('nodule'))"),
    ("tokens.mask(BOXES, rule='x')", "touch, center, stretch", "tokens.mask(BOXES, rule='center')"),
    ("data.bundled('x')", "'natural'", "data.bundled('natural', n=1)"),
    ("data.bundled('medical', n=10**5)", "a smaller n, or None for all", "data.bundled('medical', n=None)"),
]  # fmt: skip
TRACING = [
    ("Site(layers=5)", "layers=[5]", "Site(layers=[5])"),
    ("Site(heads=5)", "heads=[5]", "Site(heads=[5])"),
    ("Site(layers=[])", '"all"', "Site(layers='all')"),
    ("Site(queries=[5])", "interp.positions([5])", "Site(queries=interp.positions([5]))"),
    ("Site(layers=[1], heads=[(1, 2)])", "leave out layers=[1]", "Site(heads=[(1, 2)])"),
    ("Site(layers=[1], heads=[(1, 2)])", "such as heads=[0]", "Site(layers=[1], heads=[0])"),
    ("positions(5)", "positions([5])", "positions([5])"),
    ("positions([])", "at least one position", "positions([0])"),
    ("image_mask([1.0, 2.0])", "image_mask(map > threshold)", "image_mask(np.array([1.0, 2.0]) > 1.5)"),
    ("mllm.trace([one], reads=Rows(SITE))", "reads=[Rows(", "mllm.trace([one], reads=[Rows(SITE)])"),
    ("mllm.trace([one], edits=Knockout(SITE))", "edits=[Knockout(", "mllm.trace([one], edits=[Knockout(SITE)])"),
    ("mllm.trace([one], reads=[5])", "interp.Rows(site)", "mllm.trace([one], reads=[interp.Rows(SITE)])"),
    ("mllm.trace([one], edits=[5])", "interp.Knockout(site)", "mllm.trace([one], edits=[interp.Knockout(SITE)])"),
    ("mllm.trace([one], reads=[ANSWER])", "generate=2", "mllm.trace([one], reads=[ANSWER], generate=2)"),
    ("mllm.trace([one], edits=[LATER])", "generate=2", "mllm.trace([one], edits=[LATER], generate=2)"),
    ("Knockout(Site(queries='answer'))", 'steps="decode"', "Knockout(Site(queries='answer'), steps='decode')"),
    ("Knockout(Site(queries='answer'))", 'steps="all"', "Knockout(Site(queries='answer'), steps='all')"),
    ("Knockout(Site(queries='image'), steps='decode')", '"last", "reasoning" or "answer"', "Knockout(Site(queries='last'), steps='decode')"),
    ("Knockout(SITE, 'x')", '"renormalise" or "zero"', "Knockout(SITE, 'zero')"),
    ("mllm.trace([one], edits=[Knockout(EVERY)])", 'Knockout(…, mode="zero")', "mllm.trace([one], edits=[Knockout(EVERY, mode='zero')])"),
    ("mllm.trace([one], edits=[ScaleWeights(SITE, 0.5), Boost(SITE, 0.5)])", "List the edit of scores first", "mllm.trace([one], edits=[Boost(SITE, 0.5), ScaleWeights(SITE, 0.5)])"),
    ("Knockout(5)", "Site(layers=[16])", "Knockout(Site(layers=[16]))"),
    ("Rows(5)", "Rows(Site(layers=[14]))", "Rows(Site(layers=[14]))"),
    ("Rows(reduce='x')", '"head"', "Rows(reduce='head')"),
    ("mllm.trace([one], decoding=Decoding(1.0), generate=1)", "needs seed=", "mllm.trace([one], decoding=Decoding(1.0), generate=1, seed=0)"),
    ("Decoding(top_k=3)", "a temperature > 0", "Decoding(1.0, top_k=3)"),
    ("Decoding(beams=2)", "Use temperature=0", "Decoding(temperature=0)"),
    ("mllm.trace(['x'])", "interp.Sample(", "mllm.trace([interp.Sample(PIC, 'where is the nodule?')])"),
    ("mllm.trace([one])[0].rows", "reads=[interp.Rows", "mllm.trace([one], reads=[interp.Rows(SITE)])[0].rows"),
    ("mllm.trace([one], reads=[Rows(SITE), Rows(EVERY)])[0].rows", "trace[i].reads", "mllm.trace([one], reads=[Rows(SITE), Rows(EVERY)])[0].reads"),
    ("mllm.trace([one], reads=[Rows(BOTH)], generate=2)", "Make a read for each", "mllm.trace([one], reads=[Rows(SITE), ANSWER], generate=2)"),
    ("PatchRows(WORD, ragged().rows)", "[one.rows for one in trace]", "PatchRows(WORD, [one.rows for one in ragged()])"),
    ("tapped(queries='question')", "mllm.tap(queries=…, batch=batch)", "tapped(queries='question', batch=batch)"),
    ("mllm.prefix(mllm.prefix([one]))", "Use it as it is", "mllm.trace(mllm.prefix([one]))"),
    ("mllm.prefix([one], stop='x')", '"image" or "last"', "mllm.prefix([one], stop='last')"),
    ("mllm.using('x')", '"tap" and "source"', "mllm.using('source').trace([one])"),
    ("interp.load(5)", "interp.wrap(hf_model, processor)", "interp.wrap(*tiny('llava'))"),
    ("interp.load('organism', revision='x')", "Leave it out", "interp.load('organism')"),
    ("mllm.submit([one])", "Use mllm.trace", "mllm.trace([one])"),
    ("mllm.collect('a job', [one])", "interp.load(id, remote=True)", "mllm.trace([one])"),
    ("interp.load('organism', vision_tower='x')", "Leave it out", "interp.load('organism')"),
    ("interp.load('organism', dtype='x')", '"bfloat16"', "interp.load('organism', dtype='bfloat16')"),
    ("interp.load('organism', dtype='x')", '"auto"', "interp.load('organism', dtype='auto')"),
    ("interp.load('nowhere')", "'organism'", "interp.load('organism')"),
    ("interp.load('organism', adapter='x')", "llava", "interp.load('organism', adapter='llava')"),
    ("interp.wrap(own.hf, own.processor)", "call its unwrap() first", "interp.wrap(own.unwrap(), own.processor)"),
    ("mllm.score([one], 'yes')", 'Target("yes")', 'mllm.score([one], interp.Target("yes"))'),
    ("conformance.check('llava', checks=['x'])", "image tokens", "conformance.check('llava', checks=['image tokens'])"),
    ("conformance.check('llava', images=5)", "images=[picture]", "conformance.check('llava', images=[PIC], checks=['image tokens'])"),
]  # fmt: skip
MAPS = [
    ("Attention(relative_to='x')", "interp.GENERIC_PROMPT", "Attention(relative_to=interp.GENERIC_PROMPT)"),
    ("Attention(relative_to='x')", "Prompt(template=…)", "Attention(relative_to=Prompt(template='x'))"),
    ("Attention(queries='label')(mllm, [one])", "queries='question'", "Attention(queries='question')(mllm, [one])"),
    ("Attention(queries='label')(mllm, [one])", "Give the sample a label", "Attention(queries='label')(mllm, [one.replace(meta={'label': 'nodule'})])"),
    ("Attention(queries='question')(mllm, [one], prompt=TEXT_FIRST)", "image_first=True", "Attention(queries='question')(mllm, [one], prompt=Prompt(image_first=True))"),
    ("Attention(queries='question')(mllm, [one], prompt=TEXT_FIRST)", "queries='last'", "Attention(queries='last')(mllm, [one], prompt=TEXT_FIRST)"),
    ("Attention(queries='x')", "interp.word(…)", "Attention(queries=interp.word('nodule'))"),
    ("Attention(layers=5)", "layers=[5]", "Attention(layers=[5])"),
    ("Attention()(mllm, [one], prompt='x')", "interp.Prompt(template=…)", "Attention()(mllm, [one], prompt=interp.Prompt(template='x'))"),
    ("Attention()(mllm, [one], target='x')", 'interp.Target("an answer")', "Attention()(mllm, [one], target=interp.Target('an answer'))"),
    ("Attention()('x', [one])", "interp.wrap(…)", "Attention()(mllm, [one])"),
    ("indicators.ActivationPatching({'x': one})(mllm, [one])", "Name one for it", "indicators.ActivationPatching({one.id: one})(mllm, [one])"),
    ("indicators.RandomMasks(n=2)(mllm, [one])", "Raise n=", "indicators.RandomMasks(n=100)(mllm, [one])"),
    ("indicators.RandomMasks(removal='x')", "HideTokens()", "indicators.RandomMasks(removal=HideTokens())"),
    ("indicators.ReplaceEmbeddings('other')", "other=, an interp.Sample", "indicators.ReplaceEmbeddings('other', other=one)"),
    ("PAI(layers='all')", "layers=range(mllm.n_layers)", "PAI(layers=range(mllm.n_layers))"),
    ("PAI(layers='all')", "layers=[16]", "PAI(layers=[16])"),
    ("PAI(layers=5)", "Leave layers= out", "PAI()"),
    ("VGRefine(heads=5)", 'interp.study.published_heads("huatuogpt-vision-7b").pairs', 'VGRefine(heads=interp.study.published_heads("huatuogpt-vision-7b").pairs)'),
    ("VGRefine(heads=5)", "[(15, 4), (16, 5)]", "VGRefine(heads=[(15, 4), (16, 5)])"),
    ("VGRefine(heads=heads).answer(mllm, [one])", 'VGRefine(heads=heads.resolve("runs"))', 'VGRefine(heads=heads.resolve("runs", progress=False))'),
    ("VGRefine(heads=[(0, 1)], generic='x')", "interp.GENERIC_PROMPT", "VGRefine(heads=[(0, 1)], generic=interp.GENERIC_PROMPT)"),
    ("ViCrop(map='pure_grad', layer=3)", "map='grad_att'", "ViCrop(map='grad_att', layer=3)"),
    ("ViCrop(map='pure_grad', layer=3)", "Leave layer= out", "ViCrop(map='pure_grad')"),
    ("ViCrop(map='grad_att', generic=GENERIC_PROMPT)", "Leave generic= out", "ViCrop(map='grad_att')"),
    ("ViCrop(layer=99).crop(mllm, [one])", "Leave layer= out", "ViCrop().crop(mllm, [one])"),
    ("ViCrop().crop(mllm, [TWO])", "one sample per image", "ViCrop().crop(mllm, [Sample(image, TWO.question) for image in TWO.images])"),
    ("metrics.auroc(MAP, [1, 0, 0, 1])", "tokens.mask(boxes)", "metrics.auroc(np.arange(tokens.n), tokens.mask(BOXES))"),
    ("metrics.auroc(np.ones((3, 2, 4)), MASKS)", "mask[:, None, :]", "metrics.auroc(np.ones((3, 2, 4)), MASKS[:, None, :])"),
    ("metrics.attention_ratio_sliding(MAP, MASK, None)", "attention_ratio", "metrics.attention_ratio(MAP, MASK)"),
    ("metrics.attention_ratio_sliding(MAP, MASK, (3, 3))", "tokens.grid", "metrics.attention_ratio_sliding(np.arange(tokens.n), tokens.mask(BOXES), tokens.grid)"),
    ("metrics.named('x')", "ar, ar_sliding", "metrics.named('ar')"),
    ("metrics.named(['ar', 'ar'])", "Drop the repeated", "metrics.named(['ar'])"),
    ("metrics.curve_area([0.5], [1.0])", "the untouched input and everything removed", "metrics.curve_area([0.0, 0.5, 1.0], [1.0, 0.5, 0.0])"),
    ("stats.bootstrap([1.0, np.inf], ['a', 'b'])", "Mark undefined values as NaN", "stats.bootstrap([1.0, np.nan], ['a', 'b'])"),
    ("stats.bootstrap([1.0], ['a'], n=0)", "n=2000", "stats.bootstrap([1.0], ['a'], n=2000)"),
    ("stats.paired_test([1.0], [2.0], ['a'], n=0)", "n=9999", "stats.paired_test([1.0], [2.0], ['a'], n=9999)"),
]  # fmt: skip
STUDIES = [
    ("LayerSweep(data='x')", 'interp.data.bundled("natural")', 'LayerSweep(data=interp.data.bundled("natural"))'),
    ("LayerSweep(data=D, prompt='x')", "Prompt(template=…)", "LayerSweep(data=D, prompt=Prompt(template='x'))"),
    ("LayerSweep(data=D, indicator='x')", "Attention()", "LayerSweep(data=D, indicator=Attention())"),
    ("LayerSweep(data=D, metrics='x')", "ar, ar_sliding", "LayerSweep(data=D, metrics='ar_sliding')"),
    ("LayerSweep(data=D, indicator=Attention(per_head=True))", "per_head=False", "LayerSweep(data=D, indicator=Attention(per_head=False))"),
    ("LayerSweep(data=D, edits=Knockout(SITE))", "edits=[Knockout(", "LayerSweep(data=D, edits=[Knockout(SITE)])"),
    ("LayerSweep(data=D, model=5)", "ModelSpec(id, revision=…, dtype=…)", "LayerSweep(data=D, model=ModelSpec('organism', revision=None, dtype='float32'))"),
    ("ModelSpec('')", '"organism"', "ModelSpec('organism')"),
    ("HeadRanking(data=D, indicator=Attention())", "per_head=True", "HeadRanking(data=D, indicator=Attention(per_head=True))"),
    ("HeadRanking(data=TEST)", "pass split=", "HeadRanking(data=TEST, split='test')"),
    ("ranking(split='test').top(2)", "ranking.run().table(k)", "ranking(split='test').run('runs', progress=False).table(2)"),
    ("HeadSet()", "HeadSet.of([(15, 4), …])", "HeadSet.of([(15, 4)])"),
    ("HeadSet()", "HeadRanking(…).top(20)", "HeadRanking(data=D).top(20)"),
    ("HeadSet.of([(1, 2), (1, 2)])", "Drop the repeats", "HeadSet.of([(1, 2)])"),
    ("heads.pairs", 'heads.resolve("runs")', 'Site(heads=heads.resolve("runs", progress=False))'),
    ("study.published_heads('x')", "HeadSet.of([…])", "HeadSet.of([(0, 1)])"),
    ("Grid(5, seed=[1])", "LayerSweep(data=…)", "Grid(LayerSweep(data=D), seed=[1])"),
    ("Grid(LayerSweep(data=D), seed=5)", "a list or a mapping", "Grid(LayerSweep(data=D), seed=[5])"),
    ("Grid(LayerSweep(data=D), data=D)", 'data={"a name": samples, …}', 'Grid(LayerSweep(data=D), data={"a name": D})'),
    ("Grid(LayerSweep(data=D), seed=[1, 1])", "Pass a mapping", "Grid(LayerSweep(data=D), seed={'a': 1, 'b': 1})"),
    ("KnockoutSweep(data=D, flows=5)", '["image→last"]', 'KnockoutSweep(data=D, flows=["image→last"])'),
    ("KnockoutSweep(data=D, flows=5)", '{"image→last": ("image", "last")}', 'KnockoutSweep(data=D, flows={"image→last": ("image", "last")})'),
    ("KnockoutSweep(data=D, by='head', window=3)", "Leave it out", "KnockoutSweep(data=D, by='head')"),
    ("KnockoutSweep(data=D, by='head', window=3)", 'by="layer window"', "KnockoutSweep(data=D, by='layer window', window=3)"),
    ("IndicatorComparison(data=D, target='x')", 'Target("answer")', 'IndicatorComparison(data=D, target=Target("answer"))'),
    ("IndicatorComparison(data=D, removals=['x'])", "HideTokens()", "IndicatorComparison(data=D, removals=[HideTokens()])"),
    ("IndicatorComparison(data=D, erased=5)", "(0.1, 0.2)", "IndicatorComparison(data=D, erased=(0.1, 0.2))"),
    ("IndicatorComparison(data=D, choices=5)", "Leave it out", "IndicatorComparison(data=D)"),
    ("Refinement(data=D, method='x')", "PAI()", "Refinement(data=D, method=PAI())"),
    ("Refinement(data=D, method='x')", "VGRefine(heads=…)", "Refinement(data=D, method=VGRefine(heads=[(0, 1)]))"),
    ("choose_layer(of_test())", "descriptive=True", "choose_layer(of_test(), descriptive=True)"),
    ("choose_layer(swept(), metric='x')", "ar, kl_gain, js", "choose_layer(swept(), metric='js')"),
    ("swept().summary(level=95)", "such as 0.95", "swept().summary(level=0.95)"),
    ("swept().compare('ar', layer=1)", "Vary an axis with a Grid", "gridded().compare('ar', layer=1)"),
    ("study.matched(gridded())", "pass layer=", "study.matched(gridded(), metric='ar', layer=1)"),
    ("type(swept()).join(swept())", "join([result, …])", "type(swept()).join([swept()])"),
    ("as_part('x')", "such as 1/3", "as_part('1/3')"),
    ("make_plan([1], batch=3, shard=4)", "batch=8, shard=32", "make_plan([1], batch=8, shard=32)"),
]  # fmt: skip
ROOMS = (
    of_builder,
    of_circuits,
    of_data,
    of_models,
    of_readers,
    of_tracing,
    of_lenses,
    of_loading,
    of_maps,
    of_masks,
    of_study,
    of_people,
    of_videos,
    of_benchmarks,
    of_commands,
    of_mechanisms,
    of_refusals,
)
ADVICE = [*INPUTS, *TRACING, *MAPS, *STUDIES, *(row for room in ROOMS for row in room.ROWS)]


def _two_words() -> list[interp.Sample]:
    return [Sample_("where is the nodule?"), Sample_("where is the nodule in the left nodule?")]


def Sample_(question: str) -> interp.Sample:  # noqa: N802 - a sample by its question
    return interp.Sample(np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8), question)


@cache
def names() -> dict[str, Any]:
    """What the calls of the table know: the public names, a tiny model, and small results."""
    mllm, one = interp.wrap(*tiny("llava")), Sample_("where is the nodule?")
    picture, word = one.load(), interp.Site(layers=[0], queries=interp.word("nodule"))
    public = {
        name: getattr(module, name) for module in (study, indicators, methods) for name in module.__all__
    }
    public |= {name: getattr(interp, name) for name in interp.__all__}
    of_test = Samples([planted_sample(i, meta={"split": "test"}) for i in range(4)], "test")
    batch = mllm.encode([one])

    def tapped(**options: Any) -> None:
        with mllm.tap(**options):
            pass

    own = {
        "PIC": picture, "STORED": {"images": ["a.png"], "question": "?"}, "MANY": Sample_("?").replace(options=[f"o{i}" for i in range(27)]), "one": one, "mllm": mllm,
        "batch": batch, "tokens": batch.tokens[0], "BOXES": [(10, 10, 40, 40)], "SITE": interp.Site(layers=[0]),
        "EVERY": interp.Site(layers=[0], keys="all"), "BOTH": interp.Site(layers=[0], queries=["last", "answer"]),
        "ANSWER": interp.Rows(interp.Site(layers=[0], queries="answer")), "WORD": word,
        "LATER": interp.Knockout(interp.Site(layers=[0]), steps="decode"), "TEXT_FIRST": interp.Prompt(image_first=False),
        "TWO": interp.Sample(images=[picture, picture], question="where is the nodule?"), "tapped": tapped,
        "ragged": lambda: mllm.trace(_two_words(), reads=[interp.Rows(word)]), "own": interp.wrap(*tiny("llava")),
        "MAP": np.array([0.1, 0.7, 0.2, 0.4]), "MASK": np.array([True, False, False, True]),
        "MASKS": np.tile([True, False, False, True], (3, 1)), "D": planted_samples(4), "TEST": of_test,
        "ranking": ranking, "heads": ranking().top(2), "swept": lambda: sweep().run("runs", progress=False),
        "of_test": lambda: sweep(data=of_test).run("runs", progress=False),
        "gridded": lambda: interp.Grid(sweep(), data={"a": planted_samples(6), "b": planted_samples(6, start=20)}).run(
            "runs", progress=False
        ),
    }  # fmt: skip
    tools = {
        "np": np,
        "tiny": tiny,
        "as_part": as_part,
        "make_plan": make_plan,
        "study": study,
        "stats": stats,
    }
    modules = {"data": data, "indicators": indicators, "methods": methods, "metrics": metrics}
    rooms = [room.names() for room in ROOMS]
    found = {**public, **own, **tools, **modules, "interp": interp, "conformance": conformance}
    return {name: value for some in (*rooms, found) for name, value in some.items()}


def message_of(call: str) -> str:
    """The message of the error that a call raises."""
    with pytest.raises(InterpError) as raised:
        eval(call, names())
    return str(raised.value)


@pytest.mark.parametrize(
    ("call", "advice", "followed"),
    [pytest.param(*row, marks=[pytest.mark.slow] * (place % 10 > 0)) for place, row in enumerate(ADVICE)],
)
def test_advice_helps(
    call: str, advice: str, followed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert advice in message_of(call)
    eval(followed, names())


WRONG = ("'last'", "5", "2.5", "-1", "True", "None", "(2, 3)", "['x']", "[2.5]", "{}", "''", "[(0, 1), 2]")


TAKERS = (
    ("Site", "layers"),
    ("Site", "heads"),
    ("Site", "queries"),
    ("Site", "keys"),
    ("Attention", "layers"),
)


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize(("taker", "argument"), TAKERS)
def test_every_value_that_a_message_suggests_is_taken(taker: str, argument: str, value: str) -> None:
    try:
        eval(f"{taker}({argument}={value})", names())
    except InterpError as error:
        advised = re.split(r"[Ww]rite |[Gg]ive |[Uu]se |[Pp]ass ", str(error))[1:]
        for text in advised:
            for fragment in re.findall(rf"{argument}=(?:\[[^\]…]*\]|interp\.\w+\([^…)]*\)|'\w+')", text):
                eval(f"{taker}({fragment})", names())


# ---- what is named in any message -----------------------------------------------------------------------------------


class Raised(SimpleNamespace):
    """One `raise` in the package: where it stands, and its message with "\0" for what is filled in."""

    place: str
    text: str


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value) if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.IfExp):
        return _text(node.body) + " " + _text(node.orelse)
    return "\0"


@cache
def nodes() -> dict[Path, list[ast.AST]]:
    """What each file of the package is made of."""
    return {
        path: list(ast.walk(ast.parse(path.read_text()))) for path in sorted((ROOT / "interp").rglob("*.py"))
    }


@cache
def raised() -> tuple[Raised, ...]:
    """Every `raise` of an error with a message of its own."""
    found = []
    for path, there in nodes().items():
        for node in there:
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                text = " ".join(_text(one) for one in node.exc.args)
                found.append(Raised(place=f"{path.relative_to(ROOT)}:{node.lineno}", text=text))
    return tuple(one for one in found if one.text.strip("\0 "))


ADVISES = re.compile(
    r"\b(Write|write|Pass|pass|Use|use|Give|give|Leave|leave|Ask|Take|Make|Put|Set|Raise|Choose|Add|install|Run|run"
    r"|Name|name|Read|Load|Draw|Drop|Mark|List|Rank|Vary|Try|call)\b|such as|\w=[\[\"'\w…(]|interp\.\w|pip install|--\w"
)
"""A message that says what to do."""


def advising() -> list[Raised]:
    """The messages that hold advice."""
    return [one for one in raised() if ADVISES.search(one.text)]


def _known(pattern: str, files: str = "interp") -> set[str]:
    texts = (path.read_text() for path in (ROOT / files).rglob("*.py"))
    return {name for text in texts for name in re.findall(pattern, text)}


@cache
def arguments() -> frozenset[str]:
    """Every argument and field in the package."""
    found: set[str] = set()
    for there in nodes().values():
        for node in there:
            if isinstance(node, ast.arg):
                found.add(node.arg)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return frozenset(found)


def named(pattern: str) -> Iterator[tuple[str, str]]:
    """What all messages name by that pattern, with the place of each."""
    return ((one.place, name) for one in raised() for name in re.findall(pattern, one.text))


def missing(pattern: str, exists: Callable[[str], bool]) -> list[str]:
    """What messages name that does not exist."""
    return [f"{place}: {name}" for place, name in named(pattern) if not exists(name)]


def _resolves(dotted: str) -> bool:
    owner: Any = interp
    for part in dotted.rstrip(".").split("."):
        if not hasattr(owner, part):
            try:
                __import__(f"{owner.__name__}.{part}")
            except (AttributeError, ImportError):
                return False
        owner = getattr(owner, part)
    return True


def test_what_messages_name_of_interp_is_there() -> None:
    assert missing(r"\binterp\.((?!adapters\b)[a-zA-Z_][\w.]*)", _resolves) == []


def test_extras_that_messages_name_are_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert len(list(named(r"interp\[(\w+)\]"))) >= 2
    assert missing(r"interp\[(\w+)\]", declared.__contains__) == []


def test_pages_that_messages_name_are_there() -> None:
    assert missing(r"\b(docs/[\w/.]+\.md)", lambda name: (ROOT / name).is_file()) == []


def test_options_that_messages_name_are_there() -> None:
    options = _known(r"\b(\w+): Annotated|(\w+): ", "interp")
    options = (
        {name.replace("_", "-") for pair in options for name in pair}
        | {"all", "gen_kwargs"}
        | _options_of_scripts()
    )
    assert missing(r"(?<![\w-])--([a-z][\w-]*)", options.__contains__) == []


def _options_of_scripts() -> set[str]:
    return {name.replace("_", "-") for name in _known(r"(\w+): ", "studies")}


FOREIGN = {
    "max_length",
    "truncation",
    "shortest_edge",
    "attn_implementation",
    "vision_feature_layer",
    "one",
    "slake",
    "weights_only",
}
FOREIGN |= {"vision_feature_select_strategy", "conv_bias", "downsample_factor", "use_bidirectional_attention"}
FOREIGN |= {"imgs", "gts", "num_beams"}
"""Arguments of transformers, arrays of MedSAM's files and names of the examples."""


def test_arguments_that_messages_name_are_there() -> None:
    known = arguments() | FOREIGN
    assert missing(r"(?<![\w.=])([a-z_][a-z_0-9]*)=(?![=\0 ]*\0)", known.__contains__) == []


def test_functions_that_messages_name_are_there() -> None:
    elsewhere = {"GELU", "Path", "asarray", "def", "filled", "fsdecode", "glob", "image", "matches"}
    elsewhere |= {"resize", "save_pretrained", "sel", "to_numpy"}
    elsewhere |= {
        "MLP",
        "attention",
        "contiguous",
        "fold_activation_norm_scaling_factor",
        "items",
        "load",
        "resize_token_embeddings",
        "save_file",
        "savez",
    }
    known = _known(r"(?:def|class) (\w+)") | set(vars(builtins)) | elsewhere
    assert missing(r"\b([A-Za-z_]\w+)\((?!s\))", known.__contains__) == []


@pytest.mark.slow
def test_all_advice_is_tried() -> None:
    messages = [message_of(call) for call, _, _ in ADVICE]
    elsewhere = tuple(_opening(text) for room in ROOMS for text in room.ELSEWHERE)
    untried = [
        f"{one.place}: {one.text}"
        for one in advising()
        if not any(_fits(one.text, message) for message in messages)
        and not one.text.replace("\0", "").strip().startswith(elsewhere)
    ]
    print(f"{len(advising()) - len(untried)} of {len(advising())} messages with advice, {len(ADVICE)} rows")
    assert untried == []


def _opening(text: str) -> str:
    """The beginning of a message without what is filled in, as the tables of rooms write it."""
    return text.replace("{…}", "").strip()


def _fits(text: str, message: str) -> bool:
    pieces = [re.escape(piece) for piece in text.split("\0")]
    return re.fullmatch(".*".join(pieces), message, flags=re.DOTALL) is not None
