# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of tracing. The calls reach this module as `tr`."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch

import interp
from interp.conformance.tiny import kit, recipe, tiny
from interp.conformance.tiny.one_grid import tiny_thinking
from interp.tracing import Mllm
from interp.tracing.cost import Meter
from interp.tracing.passes.decoding import Draw
from interp.tracing.passes.run import run_pass
from interp.tracing.variants.cached_pass import KeptPass, Replaced
from interp.tracing.variants.knockouts import Knockouts
from interp.tracing.variants.target_pass import KeptTarget

ROWS: list[tuple[str, str, str]] = [
    # cross-attention layers, and models that only answer
    ("tr.llama_vision().trace(one, reads=[Rows(Site())])", "Write layers='cross'", "tr.llama_vision().trace(one, reads=[Rows(Site(layers='cross'))])"),
    ("tr.llama_vision().trace(one, reads=[Rows(Site())])", "layers='attention' for the layers", "tr.llama_vision().trace(one, reads=[Rows(Site(layers='attention', keys='text'))])"),
    ("tr.llama_vision().trace(one, reads=[Rows(Site(layers='cross', keys='text'))])", "Write keys='image'", "tr.llama_vision().trace(one, reads=[Rows(Site(layers='cross', keys='image'))])"),
    ("tr.llama_vision().trace(one, reads=[Rows(Site(layers=[0]))])", "or keys='text'", "tr.llama_vision().trace(one, reads=[Rows(Site(layers=[0], keys='text'))])"),
    ("tr.llama_vision().trace(one, reads=[Rows(Site(layers='cross', queries='image'))])", "Write queries='text'", "tr.llama_vision().trace(one, reads=[Rows(Site(layers='cross', queries='text'))])"),
    ("mllm.trace(one, reads=[Rows(Site(layers='cross'))])", "Write layers='all'", "mllm.trace(one, reads=[Rows(Site(layers='all'))])"),
    ("tr.llama_vision().trace(one, edits=[Knockout(Site(layers='cross'))])", 'Knockout(…, mode="zero")', "tr.llama_vision().trace(one, edits=[Knockout(Site(layers='cross'), mode='zero')])"),
    ("interp.indicators.Rollout()(tr.llama_vision(), one)", "interp.indicators.Attention(layers='cross')", "interp.indicators.Attention(layers='cross')(tr.llama_vision(), one)"),
    ("tr.llama_vision().image_features(one)", "mllm.encode(samples)", "tr.llama_vision().image_features(tr.llama_vision().encode(one))"),
    ("tr.answering().trace(one)", "it serves mllm.answers", "tr.answering().answers(one, generate=1)"),
    ("tr.answering().answers(one, edits=[Knockout(SITE)])", "leave edits= out", "tr.answering().answers(one, generate=1)"),
    ("tr.answering().answers(mllm.encode(one))", "takes samples, not an encoded batch", "tr.answering().answers([one], generate=1)"),
    ("tr.answering(nan=True).answers(one)", "Try dtype='float32'", "tr.answering().answers(one, generate=1)"),
    # wrapping
    ("tr.unwrapped().trace([one])", "interp.wrap", "interp.wrap(*tiny('llava')).trace([one])"),
    ("tr.deep_copy(mllm)", "Load it again with interp.load", "interp.load(ld.saved())"),
    ("tr.deep_copy(mllm)", "wrap a copy of the model that mllm.unwrap() returns", "tr.copied().trace([one])"),
    ("tr.within(mllm)", "Leave the `with mllm.tap(…)` block", "tr.after(mllm)"),
    ("interp.wrap(tiny('llava')[0].to('meta'), own.processor)", "Load the model's weights before you wrap it", "interp.wrap(tiny('llava')[0], own.processor)"),
    # prompts
    ("interp.wrap(*tr.without_patch_size()).encode([one])", "Set processor.patch_size", "interp.load(ld.saved(), processor=tr.with_patch_size()).encode([one])"),
    ("mllm.encode([Sample(PIC, 'what is there ? ' * 1100)])", "Shorten the text", "mllm.encode([Sample(PIC, 'what is there ? ')])"),
    ("mllm.trace([one], generate=10**4)", "generate fewer tokens", "mllm.trace([one], generate=1)"),
    ("tr.cutting(12).encode([one])", "Raise its model_max_length", "tr.cutting(4096).encode([one])"),
    ("tr.templated('{# nothing #}').encode([one])", "Set mllm.processor.chat_template to a template that writes the images", "tr.templated(tr.USER).encode([one])"),
    ("tr.templated('{# nothing #}').encode([one])", "or to None", "tr.templated(None).encode([one])"),
    ("mllm.encode([Sample(PIC, 'is </s> there')])", "sample.replace(question", "mllm.encode([Sample(PIC, 'is </s> there').replace(question='is the end there')])"),
    ("mllm.encode([Sample(PIC, 'which ?', options=['a', '</s>'])])", "sample.replace(options", "mllm.encode([Sample(PIC, 'which ?', options=['a', '</s>']).replace(options=['a', 'the end'])])"),
    ("tr.templated(tr.USER).encode([one], Prompt('{question}', system='be brief'))", "interp.Prompt(template='be brief {question}')", "tr.templated(tr.USER).encode([one], interp.Prompt(template='be brief {question}'))"),
    # thoughts
    ("mllm.encode([one], Prompt(thinking=True))", "Leave thinking= out", "mllm.encode([one], Prompt())"),
    ("mllm.trace([one], reads=[Rows(Site(queries='reasoning'))], generate=2)", 'queries="answer"', "mllm.trace([one], reads=[Rows(Site(queries='answer'))], generate=2)"),
    ("tr.thinking().score([one], Target('yes'), prompt=tr.OPEN)", "interp.Prompt(thinking=False)", "tr.thinking().score([one], Target('yes'), prompt=interp.Prompt(thinking=False))"),
    ("tr.thinking().score([one], Target('yes'), prompt=tr.OPEN)", "mllm.reasoned(samples, thoughts)", "tr.thinking().score(tr.thinking().reasoned([one], ['it is red'], tr.OPEN), Target('yes'))"),
    ("mllm.reasoned([one], ['it is red'])", "Use a model that thinks", "tr.thinking().reasoned([one], ['it is red'])"),
    ("tr.thinking().reasoned(tr.thinking().prefix([one]), ['it is red'])", "Give its samples", "tr.thinking().reasoned(tr.thinking().prefix([one]).batch, ['it is red'])"),
    ("tr.thinking().reasoned([one], ['is </think> red'])", "Leave them out", "tr.thinking().reasoned([one], ['is red'])"),
    ("tr.thinking().reasoned([one], ['is red'], Prompt(thinking=False))", "interp.Prompt(thinking=True)", "tr.thinking().reasoned([one], ['is red'], interp.Prompt(thinking=True))"),
    ("tr.thinking().reasoned([one], ['is red'], Prompt(thinking=False))", "or leave thinking= out", "tr.thinking().reasoned([one], ['is red'], Prompt())"),
    # mixtures of experts
    ("mllm.trace([one], reads=[interp.Experts()])", "Use it with a mixture-of-experts model", "tr.mixture().trace([one], reads=[interp.Experts()])"),
    ("tr.mixture().trace([one], reads=[interp.Experts(layers=[0, 1])])", "Leave these out", "tr.mixture().trace([one], reads=[interp.Experts(layers=[1])])"),
    ("tr.mixture().trace([one], reads=[interp.Experts(layers=[0, 1])])", 'layers="all"', "tr.mixture().trace([one], reads=[interp.Experts(layers='all')])"),
    ("tr.tempered().trace(tr.two())", "batch_size=1", "tr.tempered().trace(tr.two(), batch_size=1)"),
    # sites
    ("mllm.trace([one], reads=[Rows(Site(keys=interp.positions([999])))])", "positions run from 0", "mllm.trace([one], reads=[Rows(Site(keys=interp.positions([0, tokens.length - 1])))])"),
    ("mllm.trace([one], reads=[Rows(Site(keys=['answer']))])", "write queries='answer' with generate=2", "mllm.trace([one], reads=[Rows(Site(queries='answer'))], generate=2)"),
    ("mllm.trace([one], edits=[Knockout(Site(keys=['answer']))])", "in an edit also steps='decode' or steps='all'", "mllm.trace([one], edits=[Knockout(Site(queries='answer'), steps=steps) for steps in ('decode', 'all')], generate=2)"),
    ("mllm.trace([one], reads=[Rows(Site(keys=image_mask(tr.masks(2))))])", "Give one mask per sample", "mllm.trace([one], reads=[Rows(Site(keys=image_mask(tr.masks(1))))])"),
    ("mllm.trace([one], reads=[Rows(Site(keys=image_mask(tr.masks(2))))])", "a single mask (token,)", "mllm.trace([one, one], reads=[Rows(Site(keys=image_mask(tr.masks(2)[0])))])"),
    # the vision tower
    ("Site(tower='vision')", 'write queries="patches"', "mllm.trace([one], reads=[Rows(Site(tower='vision', queries='patches'))])"),
    ("Site(tower='vision')", '"cls" or "register" (if the tower has such tokens)', "mllm.trace([one], reads=[Rows(Site(tower='vision', queries='cls'))])"),
    ("Site(tower='vision')", 'interp.positions([…]), or interp.image_mask(…) over patches', "mllm.trace([one], reads=[Rows(Site(tower='vision', queries=q)) for q in ('all', interp.positions([1]))])"),
    ("Site(tower='vision', queries='cls', keys='text')", "interp.image_mask(…) over patches", "mllm.trace([one], reads=[Rows(Site(tower='vision', queries='cls', keys=image_mask(tr.np.arange(mllm.encode([one]).patches[0].n) < 3)))])"),
    ("mllm.trace([one], reads=[Rows(Site(tower='vision', queries='register'))])", "interp.positions([…]) and interp.image_mask", "mllm.trace([one], reads=[Rows(Site(tower='vision', queries=interp.positions([0])))])"),
    ("mllm.trace([one], edits=[PatchRows(tr.IN_TOWER, tr.np.zeros((1, 1, 1, 1)))])", "In the vision tower use Knockout, ScaleWeights", "mllm.trace([one], edits=[Knockout(tr.IN_TOWER, 'zero'), interp.ScaleWeights(tr.IN_TOWER, 2)])"),
    ("mllm.trace([one], edits=[Knockout(tr.IN_TOWER, steps='all')], generate=2)", "so its edits have steps='prefill'", "mllm.trace([one], edits=[Knockout(tr.IN_TOWER, steps='prefill')], generate=2)"),
    ("mllm.trace([one], edits=[Knockout(Site(tower='vision', queries='all', keys='all'))])", "Keep a key visible", "mllm.trace([one], edits=[Knockout(Site(tower='vision', queries='all', keys='cls'))])"),
    ("mllm.trace([one], edits=[Knockout(Site(tower='vision', queries='all', keys='all'))])", 'or use Knockout(…, mode="zero")', "mllm.trace([one], edits=[Knockout(Site(tower='vision', queries='all', keys='all'), mode='zero')])"),
    ("Site(heads=(0, 1))", "heads=[0, 1]", "Site(heads=[0, 1])"),
    ("Site(heads=(0, 1))", "heads=[(0, 1)]", "Site(heads=[(0, 1)])"),
    ("tapped(queries='question', batch=mllm.encode(tr.two()))", "Tap one sample at a time", "[tapped(queries='question', batch=mllm.encode([each])) for each in tr.two()]"),
    ("tapped(queries='question', batch=mllm.encode(tr.two()))", "mllm.trace(reads=[…])", "mllm.trace(tr.two(), reads=[Rows(Site(layers=[0], queries='question'))])"),
    # edits
    ("Apply(SITE, lambda values, cells: values * 2).to_dict()", "Define it with def in a file", "Apply(SITE, tr.doubled).to_dict()"),
    ("Apply(SITE, tr.scaled_by(2)).to_dict()", "as default arguments", "Apply(SITE, tr.scaled).to_dict()"),
    ("mllm.trace([one], edits=[Apply(SITE, tr.hidden, stage='scores')])", "To hide keys use interp.Knockout", "mllm.trace([one], edits=[Knockout(SITE)])"),
    ("mllm.trace([one], edits=[ScaleWeights(EVERY, 3e38), ScaleWeights(EVERY, 3e38)])", "Are factors or values too large", "mllm.trace([one], edits=[ScaleWeights(EVERY, 3.0), ScaleWeights(EVERY, 3.0)])"),
    ("mllm.trace([one], edits=[PatchRows(SITE, tr.rows(Site(layers=[0, 1])))])", "Read them with Rows of the same site", "mllm.trace([one], edits=[PatchRows(SITE, tr.rows(SITE))])"),
    ("mllm.trace([one], edits=[PatchResidual([0], 'last', tr.stream([0, 1]))])", "Read them with Residual of the same layers", "mllm.trace([one], edits=[PatchResidual([0], 'last', tr.stream([0]))])"),
    ("mllm.trace([one, one], edits=[PatchResidual([0], 'last', [tr.stream([0]), np.zeros((1, 1, 65))])])", "Read them from one model", "mllm.trace([one, one], edits=[PatchResidual([0], 'last', [tr.stream([0]), tr.stream([0])])])"),
    ("mllm.trace([one], edits=[PatchResidual([0], 'last', np.zeros((1, 1, 9)))])", "Read them from the same model", "mllm.trace([one], edits=[PatchResidual([0], 'last', tr.stream([0]))])"),
    ("mllm.trace([one], edits=[PatchRows(SITE, [tr.rows(SITE)] * 2)])", "Give one array per sample", "mllm.trace([one], edits=[PatchRows(SITE, [tr.rows(SITE)])])"),
    ("mllm.trace([one], edits=[PatchRows(SITE, [tr.rows(SITE)] * 2)])", "a single array for all", "mllm.trace([one, one], edits=[PatchRows(SITE, tr.rows(SITE))])"),
    # generation
    ("Decoding(1.0, contrast=2)", "an interp.Contrast or None", "[Decoding(1.0, contrast=each) for each in (interp.Contrast(2), None)]"),
    ("mllm.answers([one], generate=0)", "Write generate=1 or more", "mllm.answers([one], generate=1)"),
    ("mllm.trace([one], decoding='greedy')", "an interp.Decoding", "mllm.trace([one], decoding=interp.Decoding())"),
    ("tr.drawn('float16')", "Try dtype='float32'", "tr.drawn('float32')"),
    ("tr.ending('x').trace([one], generate=2)", "Set mllm.hf.generation_config.eos_token_id = 2", "tr.ending(2).trace([one], generate=2)"),
    ("tr.ending('x').trace([one], generate=2)", "a list of them, or None", "[tr.ending(ids).trace([one], generate=2) for ids in ([2, 3], None)]"),
    # frequencies of positions that depend on the batch
    ("tr.passed(tr.roped(), tr.of_two_lengths())", "Run the samples one by one", "[tr.passed(tr.roped(), [each]) for each in tr.of_two_lengths()]"),
    ("tr.passed(tr.roped(), tr.of_two_lengths())", "group them by length", "tr.passed(tr.roped(), tr.of_two_lengths()[:1] * 2)"),
    ("tr.roped().trace(tr.of_two_lengths()[0], generate=tr.LIMIT)", "Ask for fewer tokens", "tr.roped().trace(tr.of_two_lengths()[0], generate=1)"),
    # executors
    ("tr.calling_on().using('source').trace([one], reads=[Rows(SITE)])", "Use a model class that does", "interp.wrap(*tiny('llava')).using('source').trace([one], reads=[Rows(SITE)])"),
    # targets
    ("mllm.score([one], interp.Target(diff('yes', 'yes ')))", "Name answers that the tokenizer tells apart", "mllm.score([one], interp.Target(diff('yes', 'no')))"),
    ("mllm.score([one], interp.Target('🦄'))", "Name an answer whose words are in the vocabulary", "mllm.score([one], interp.Target('yes'))"),
    ("indicators.AttentionGradient()(tr.prefixing(), [one], target=interp.Target('left lung'))", "Use a target of one token", "indicators.AttentionGradient()(tr.prefixing(), [one], target=interp.Target('left'))"),
    ("indicators.AttentionGradient()(tr.prefixing(), [one], target=interp.Target('left lung'))", "or mllm.score", "tr.prefixing().score([one], interp.Target('left lung'))"),
    ("tr.large_variants('float16')", "Load the model with dtype='float32'", "tr.large_variants('float32')"),
    ("KeptPass.of(mllm, mllm.encode([one, one]), tr.meter())", "a kept pass is of one sample", "[KeptPass.of(mllm, mllm.encode([each]), tr.meter()) for each in (one, one)]"),
    ("tr.kept().run(0, tr.kept().first, tr.meter())", "at least one variant", "tr.kept().run(1, tr.kept().first, tr.meter())"),
    ("tr.kept().run(1, 3, tr.meter())", "on, after a prefix", "tr.kept().run(1, tr.kept().first, tr.meter())"),
    # weights
    ("indicators.AttentionGradient()(tr.of_inference_mode(), [one])", "Load the model outside of it", "indicators.AttentionGradient()(mllm, [one])"),
    ("tr.offloaded().to_lens()", "Load the model without offloading", "mllm.to_lens()"),
    ("tr.quantised().to_lens()", "Load the model without quantization", "mllm.to_lens()"),
    ("indicators.ValueWeightedAttention()(tr.renamed(), [one])", "Use Attention()", "Attention()(tr.renamed(), [one])"),
    # hybrid models
    ("tr.hybrid().trace([one], reads=[Rows(Site(layers=[2, 3]))])", 'such as layers="attention"', "tr.hybrid().trace([one], reads=[Rows(Site(layers='attention'))])"),
    ("tr.hybrid().trace([one], reads=[Rows(Site(layers=[2, 3]))])", "or make two sites", "tr.hybrid().trace([one], reads=[Rows(Site(layers=[2])), Rows(Site(layers=[3]))])"),
    ("Attention(layers=[0])(tr.hybrid(), [one])", 'name some of these, or write layers="attention"', "[Attention(layers=each)(tr.hybrid(), [one]) for each in ([3], 'attention')]"),
    ("tr.hybrid().trace([one], edits=[Boost(Site(layers=[0]), 0.5)])", "Name attention layers", "tr.hybrid().trace([one], edits=[Boost(Site(layers='attention'), 0.5)])"),
    ("tr.hybrid().trace([one], edits=[Knockout(Site(layers=[0]), 'zero')])", 'Knockout(site, "renormalise")', "tr.hybrid().trace([one], edits=[Knockout(Site(layers=[0]), 'renormalise')])"),
    ("indicators.Rollout()(tr.hybrid(), [one])", "Use Attention() or TokenKnockout()", "[each(tr.hybrid(), [one]) for each in (Attention(), indicators.TokenKnockout())]"),
    ("tr.hybrid().to_lens()", "Use mllm.trace", "tr.hybrid().trace([one], reads=[Rows(Site(layers=each)) for each in ('attention', 'linear')])"),
    ("metrics.kl_divergence(tr.delta_rows(), [True] * 3 + [False] * 9)", "Take interp.metrics.positive_part(map)", "metrics.kl_divergence(metrics.positive_part(tr.delta_rows()), [True] * 3 + [False] * 9)"),
    ("metrics.kl_divergence(tr.delta_rows(), [True] * 3 + [False] * 9)", "auroc, average_precision and pointing_game take values as they are", "[each(tr.delta_rows(), [True] * 3 + [False] * 9) for each in (metrics.auroc, metrics.average_precision, metrics.pointing_game)]"),
]  # fmt: skip

IN_TOWER = interp.Site(tower="vision", queries="cls", keys=interp.positions([3]))

ELSEWHERE: dict[str, str] = {
    "give one split for all data, or one for each name": "tests/studies/test_benchmark_scripts.py::test_splits_are_one_for_all_or_one_for_each",
    "PatchRows names rows of generated tokens by": "tests/tracing/test_edits.py, where patches of generated tokens are refused and run",
    "PatchResidual names generated tokens by": "tests/tracing/test_edits.py, where patches of generated tokens are refused and run",
    "circuits explain the difference between two answers": "tests/tracing/test_circuits.py reads it; its advice is another image",
    "to_lens cannot stack the values of": "tests/tracing/lens/test_lens.py::test_layers_that_cannot_be_stacked_are_refused",
    "TransformerLens has no adapter for": "tests/tracing/lens/test_lens.py::test_families_without_an_adapter_are_refused_by_name",
    "sharing takes an interp.tracing.Prefixes": "says which type is taken; there is no way on but to give it",
    "the server needs the exact name of": "needs a hub that cannot be reached; tests/tracing/remote/test_digest.py reads what is looked up",
    "{…}={…} is a group of tokens, such as": "tests/tracing/test_site.py, where groups that do not exist are refused",
    "the tokenizer makes no token from the answer": "tests/tracing/test_target.py reads it; its advice is another answer",
    "no circuit can be run through TransformerLens": "tests/study/circuit/test_study.py::test_layers_that_cannot_be_had_stop_the_run",
    "{…}.forward does not call transformers'": "tests/tracing/attention/test_delta_tap.py::test_a_forward_that_calls_no_rule_is_named",
    "accelerate moves the weights of this {…}": "tests/tracing/attention/test_delta_tap.py::test_weights_that_accelerate_fetches_are_named",
    "layer {…} is linear (gated DeltaNet): tokens are erased": "tests/tracing/attention/test_delta_knockouts.py::test_a_kept_pass_cannot_erase_what_a_prefix_holds",
    "mode='zero' sets weights of a softmax": "tests/tracing/attention/test_delta_tap.py::test_a_sweep_of_windows_blocks_layers_of_both_kinds",
    "the vision tower is not read on an NDIF server": "needs a server; the message names the argument to leave out",
    "layer {…} of the vision tower was seen to attend over": "tests/tracing/test_vision_tower.py::test_an_adapter_that_miscounts_is_refused",
    "the vision tower has {…} positions, but the adapter": "tests/tracing/derived/test_outlying_norms.py::test_an_adapter_that_miscounts_is_refused",
    "this batch was made without its model": "tests/tracing/test_vision_tower.py::test_a_batch_or_adapter_without_patches_is_refused",
    "interp.tracing has no": "tests/test_public_names.py::test_a_misspelt_name_of_the_tracing_room_is_refused",
    "torch's default device is meta": "tests/tracing/passes/test_decoding.py::test_a_meta_default_device_is_refused",  # the beginning of a message: why no row follows it, or the test that does
    "sample {…}, number {…} of those given, does not fit in memory even alone": "no memory runs out in a row; tests/tracing/passes/test_micro_batches.py::test_what_does_not_fit_is_run_in_halves",
    "a variant of sample {…} does not fit in memory even alone": "no memory runs out in a row; tests/indicators/test_micro_batches.py::test_samples_or_variants_that_do_not_fit_are_halved",
    # they need a model that says what the test wants, or a family or a tokenizer without what is needed
    "sample {…} of the batch ended a thought": "tests/tracing/test_reasoning.py::test_what_cannot_be_told_is_refused",
    "in {…} every row of the prompt sees the whole prompt, so the rows before": "tests/tracing/test_reasoning.py::test_what_cannot_hold_a_thought_is_refused",
    "cutting a thought into sentences": "tests/tracing/test_reasoning.py::test_what_cannot_hold_a_thought_is_refused",
    'edits of queries="reasoning" or "answer" check': "tests/tracing/test_reasoning.py::test_what_cannot_hold_a_thought_is_refused",
    "the model begins a thought before its answer": "tests/tracing/test_reasoning.py::test_what_cannot_be_told_is_refused",
    "edits of gated DeltaNet layers cannot take": "tests/tracing/test_reasoning.py::test_deltanet_edits_of_one_stage_are_refused",
    "the model begins a thought": "tests/tracing/test_reasoning.py::test_what_cannot_be_told_is_refused",
    # they need a server
    "a model on an NDIF server has only the executor": "tests/tracing/remote/test_remote.py::test_what_needs_the_weights_is_refused",
    "a model on an NDIF server is not wrapped": "tests/tracing/remote/test_remote.py::test_what_needs_the_weights_is_refused",
    "{…} gave no job id": "tests/tracing/remote/test_remote.py::test_a_pass_that_no_server_ran_is_an_error",
    "the decoder of {…} has no `norm` beside its layers": "tests/tracing/remote/test_remote.py::test_what_the_stream_needs_is_checked_first",
    "interp does not know how the layers of {…} add": "tests/tracing/remote/test_remote.py::test_what_the_stream_needs_is_checked_first",
    "this needs the model's weights on this machine": "tests/tracing/remote/test_remote.py::test_what_needs_the_weights_is_refused",
    "{…}: a model on an NDIF server is loaded already": "tests/tracing/remote/test_remote.py::test_a_server_is_checked_when_a_model_is_opened",
    "{…}: jobs of one cannot run on the other": "tests/tracing/remote/test_remote.py::test_a_server_is_checked_when_a_model_is_opened",
    "{…} does not serve": "tests/tracing/remote/test_remote.py::test_a_server_is_checked_when_a_model_is_opened",
    "a job is named by its id": "tests/tracing/remote/test_remote.py::test_a_job_is_collected_later_by_its_id",
    "job {…} was sent with other samples": "tests/tracing/remote/test_remote.py::test_a_job_is_collected_later_by_its_id",
    "job {…} is not done on": "tests/tracing/remote/test_remote.py::test_a_job_is_collected_later_by_its_id",
    "submit sends one job, which runs one pass": "tests/tracing/remote/test_remote.py::test_several_passes_are_not_submitted",
    "layer {…} ({…}) has experts, but no router": "tests/tracing/layers/test_mlp_and_experts.py::test_a_router_that_is_not_known",
    "the trace has ": "rows in tests/test_advice.py follow both forms of it",
}

LIMIT = 60
OPEN = interp.Prompt(thinking=True)
USER = (
    "{% for m in messages if m['role'] == 'user' %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
)


@cache
def thinking() -> Mllm:
    """A tiny model that may think."""
    return interp.wrap(*tiny_thinking())


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    return {"tr": sys.modules[__name__], "KeptPass": KeptPass}


def _sample(question: str) -> interp.Sample:
    return interp.Sample(np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8), question)


def two() -> list[interp.Sample]:
    """Samples whose questions have other numbers of tokens."""
    return [_sample("where is the nodule?"), _sample("where is it in the left lung?")]


def masks(n: int) -> np.ndarray:
    """A mask over the 16 image tokens for each of `n` samples."""
    return np.arange(16) % 2 == np.zeros((n, 1))


@cache
def llama_vision() -> Mllm:
    """A model with cross-attention layers."""
    return interp.wrap(*tiny("mllama"))


def answering(*, nan: bool = False) -> Mllm:
    """A model that only answers; its logits are not numbers if asked for."""
    hf, processor = tiny("llava")
    if nan:
        hf.lm_head.weight.data.fill_(float("nan"))
    return interp.wrap(hf, processor, adapter="answers_only")


@cache
def llava() -> Mllm:
    """A tiny model."""
    return interp.wrap(*tiny("llava"))


@cache
def mixture() -> Mllm:
    """A model whose first layer has no experts."""
    return interp.wrap(*tiny("qwen3_vl_moe"))


def tempered() -> Mllm:
    """A Llama 4 that scales its queries from position 39 on."""
    hf, processor = tiny("llama4")
    hf.config.text_config.floor_scale = 40
    for layer in hf.language_model.model.layers:
        layer.self_attn.floor_scale = 40
    return interp.wrap(hf, processor)


def hybrid() -> Mllm:
    """A model three of whose four layers are gated DeltaNets."""
    return interp.wrap(*tiny("qwen3_5_moe"))


def delta_rows() -> Any:
    """A signed row over its 12 image tokens."""
    found = hybrid().trace([_sample("where ?")], reads=[interp.Rows(interp.Site(layers=[2]), reduce="head")])
    return found[0].rows[0, 0]


def rows(site: interp.Site) -> np.ndarray:
    """Attention that a model has at a site."""
    return llava().trace(two()[:1], reads=[interp.Rows(site)])[0].rows.values


def stream(layers: list[int]) -> np.ndarray:
    """A model's residual stream at the last position."""
    return llava().trace(two()[:1], reads=[interp.Residual(layers)])[0].residual.values


# ---- models that are refused ----


def unwrapped() -> Mllm:
    """An Mllm after its unwrap()."""
    mllm = interp.wrap(*tiny("llava"))
    mllm.unwrap()
    return mllm


def deep_copy(mllm: Mllm) -> Mllm:
    """A deep copy of a wrapped model."""
    return copy.deepcopy(mllm)


def copied() -> Mllm:
    """A wrapped copy of what unwrapping gives back."""
    first = interp.wrap(*tiny("llava"))
    processor = first.processor
    return interp.wrap(copy.deepcopy(first.unwrap()), processor)


def within(mllm: Mllm) -> None:
    """Traces in a tap's block."""
    with mllm.tap():
        mllm.trace(two())


def after(mllm: Mllm) -> None:
    """Traces after a tap's block."""
    with mllm.tap():
        pass
    mllm.trace(two())


def of_inference_mode() -> Mllm:
    """A model made in inference mode."""
    with torch.inference_mode():
        hf, processor = tiny("llava")
        return interp.wrap(hf.to(torch.bfloat16), processor)


def offloaded() -> Mllm:
    """A model whose weights accelerate keeps elsewhere."""
    import accelerate

    hf, processor = tiny("llava")
    accelerate.cpu_offload(hf, execution_device=torch.device("cpu"))
    return interp.wrap(hf, processor)


def quantised() -> Mllm:
    """A model that says it is quantised."""
    hf, processor = tiny("llava")
    hf.is_quantized = True
    return interp.wrap(hf, processor)


def on_two_devices() -> Mllm:
    """A model that says it is on two devices."""
    hf, processor = tiny("llava")
    hf.hf_device_map = {"a": "cpu", "b": 0}
    return interp.wrap(hf, processor)


# ---- prompts ----


def without_patch_size() -> tuple[Any, Any]:
    """A model, and a processor that cannot count image tokens."""
    hf, processor = tiny("llava")
    processor.patch_size = None
    return hf, processor


def with_patch_size() -> Any:
    """The processor, set as the message says."""
    hf, processor = without_patch_size()
    processor.patch_size = hf.config.vision_config.patch_size
    processor.num_additional_image_tokens = tiny("llava")[1].num_additional_image_tokens
    return processor


def cutting(longest: int) -> Mllm:
    """A model with a tokenizer that cuts off what is beyond its model_max_length, whatever it is asked."""
    hf, processor = tiny("llava")
    kind = type(processor.tokenizer)

    class Cutting(kind):
        def __call__(self, *args: Any, **options: Any) -> Any:
            return super().__call__(*args, **{**options, "truncation": True})

    processor.tokenizer.__class__ = Cutting
    processor.tokenizer.model_max_length = longest
    return interp.wrap(hf, processor)


def templated(template: str | None) -> Mllm:
    """A model with another chat template."""
    mllm = interp.wrap(*tiny("llava"))
    mllm.processor.chat_template = template
    return mllm


# ---- edits ----


def doubled(values: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Twice the values."""
    return values * 2


def scaled_by(k: float) -> Any:
    """A function that takes its factor from around it."""

    def scaled(values: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        return values * k

    return scaled


def scaled(values: torch.Tensor, cells: torch.Tensor, k: float = 2) -> torch.Tensor:
    """A function whose factor is a default argument."""
    return values * k


def hidden(values: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Minus infinity at the cells."""
    return values.masked_fill(cells, -torch.inf)


# ---- generation ----


def drawn(dtype: str) -> torch.Tensor:
    """A token drawn from the logits of a model that overflows in half precision."""
    hf, processor = tiny("llava")
    hf.model.multi_modal_projector.linear_2.weight.data.mul_(1e8)
    mllm = interp.wrap(hf.to(getattr(torch, dtype)), processor)
    with torch.no_grad():
        logits = mllm.hf(**mllm.encode(two()[:1]).inputs).logits[:, -1]
    return Draw(interp.Decoding(1.0), 0, ["a"])(logits)


def ending(ids: Any) -> Mllm:
    """A model whose answers end with these tokens."""
    mllm = interp.wrap(*tiny("llava"))
    mllm.hf.generation_config.eos_token_id = ids
    return mllm


@cache
def roped() -> Mllm:
    """A model whose frequencies change beyond `LIMIT` positions."""
    made = recipe("llava")
    config: Any = made.config()
    factors: Mapping[str, Any] = {"short_factor": [1.0] * 8, "long_factor": [2.0 + i for i in range(8)]}
    scaling = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0}
    config.text_config.rope_parameters = {**scaling, "original_max_position_embeddings": LIMIT, **factors}
    return interp.wrap(kit.build(made.model, config), made.processor())


def of_two_lengths() -> list[interp.Sample]:
    """A sample within the limit and one beyond it."""
    return [_sample("where is the nodule ?"), _sample("what is in the left lung ? " * 5)]


def passed(mllm: Mllm, samples: list[interp.Sample]) -> torch.Tensor:
    """The logits of one pass over all of the samples."""
    found = mllm.encode(samples)
    return run_pass(mllm.hf, found.inputs | {"position_ids": found.positions}, meter())


# ---- targets ----


@cache
def prefixing() -> Mllm:
    """A model whose prompt's rows see the whole prompt."""
    return interp.wrap(*tiny("paligemma"))


def meter() -> Meter:
    """Counts a pass."""
    return Meter(torch.device("cpu"))


@cache
def kept() -> KeptPass:
    """A pass that goes on from a prefix."""
    return Knockouts.of(llava(), two()[0])._kept(whole=False)[0]


def large_variants(dtype: str) -> Any:
    """A target's value where what enters the model is too large for half precision."""
    hf, processor = tiny("llava")
    mllm = interp.wrap(hf.to(getattr(torch, dtype)), processor)
    scored = KeptTarget.of(mllm, two()[0], interp.PAPER_PROMPT, interp.Target("yes"))

    def run(own: KeptPass) -> Any:
        every = torch.ones(1, own.tokens.n, dtype=torch.bool)
        return [own.run(1, 0, meter(), entering=Replaced(every, own.stream(0, meter()) * 1e7))]

    return scored.values(run)


# ---- attention ----


def calling_on() -> Mllm:
    """A model whose attention modules call attention from a forward of their own."""
    hf, processor = tiny("llava")
    for layer in hf.model.language_model.layers:
        kind = type(layer.self_attn)

        class Own(kind):
            def forward(self, *args: Any, **options: Any) -> Any:
                return super().forward(*args, **options)

        layer.self_attn.__class__ = Own
    return interp.wrap(hf, processor)


def renamed() -> Mllm:
    """A model whose attention modules have their output matrix under another name."""
    hf, processor = tiny("llava")
    for layer in hf.model.language_model.layers:
        kind = type(layer.self_attn)

        class Renamed(kind):
            def forward(self, *args: Any, **options: Any) -> Any:
                self.o_proj = self.out
                try:
                    return super().forward(*args, **options)
                finally:
                    del self.o_proj

        layer.self_attn.out = layer.self_attn.o_proj
        del layer.self_attn.o_proj
        layer.self_attn.__class__ = Renamed
    return interp.wrap(hf, processor)
