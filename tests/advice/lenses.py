# ruff: noqa: E501 - a row of a table is a line
"""Advice of the errors of lenses, TransformerLens' and those of words. The calls reach this module as `le`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import interp
from interp.conformance.tiny import tiny
from interp.tracing import Mllm, word_lenses
from interp.tracing.lens import Lens
from tests.advice.tracing import llava

ROWS: list[tuple[str, str, str]] = [
    # TransformerLens
    ("le.lens().run_with_cache([one], hooks=['hook_patern'])", "attn.hook_pattern", "le.lens().run_with_cache([one], hooks=['attn.hook_pattern'])"),
    ("le.lens().run_with_cache([one], hooks=['ln1.hook_scale'])", "lens.bridge.run_with_cache(ids, **others)", "le.lens().bridge.run_with_cache(batch.inputs['input_ids'], **le.others(batch.inputs))[1]['blocks.0.ln1.hook_scale']"),
    ("le.lens().run_with_cache([one])[1][0]['attn.hook_z']", "run_with_cache(…, hooks=[…])", "le.lens().run_with_cache([one], hooks=['attn.hook_z'])[1][0]['attn.hook_z']"),
    ("le.lens().attribution([one], Target(diff('left lung', 'left nodule')))", "differ from their first token on", "le.lens().attribution([one], Target(diff('left lung', 'right lung')))"),
    ("le.doubling().attribution([one])", "Use a logit lens or knockouts", "le.doubling().logit_lens([one])"),
    ("le.doubling().attribution([one])", "Use a logit lens or knockouts", "le.doubling().mllm.trace([one], edits=[Knockout(SITE)])"),
    ("le.centring().attribution([one])", "Use a logit lens, which takes any norm", "le.centring().logit_lens([one])"),
    ("tr.on_two_devices().to_lens()", "Load it with device= one of them", "interp.load(ld.saved(), device='cpu').to_lens()"),
    ("le.lens().run_with_cache(mllm.prefix([one]))", "Give samples or a batch", "[le.lens().run_with_cache(each) for each in ([one], batch)]"),
    ("le.lens().components([one], positions=image_mask(tr.masks(1)[0] & False))", "Name other positions", "le.lens().components([one], positions='question')"),
    ("le.lens().logit_lens([one], ['pancreas'])", "a shorter word", "le.lens().logit_lens([one], ['lung'])"),
    # lenses of words
    ("le.word_lenses.read_words(None, [one], ['red'])", "takes a model of interp.load or interp.wrap", "le.word_lenses.read_words(mllm, [one], ['red'])"),
    ("le.word_lenses.read_words(mllm, [one], ['red'], {'tuned': {}})", "the name one of contextual, jacobian, patchscope", "le.word_lenses.read_words(mllm, [one], ['red'], {'patchscope': {'prompt': 'red ?'}})"),
    ("le.word_lenses.Patchscope(' ')", "such as 'cat->cat; 1135->1135; hello->hello; ?'", "le.word_lenses.Patchscope('cat->cat; 1135->1135; hello->hello; ?')"),
    ("le.word_lenses.Patchscope(position=None)", "such as −1", "le.word_lenses.Patchscope(position=-1)"),
    ("le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.LatentLens(['a <image> red']))", "remove the placeholder from it", "le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.LatentLens(['a red']))"),
    ("le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.LatentLens(['a red', 'is <image> there']))", "Leave it out", "le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.LatentLens(['a red']))"),
    ("le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.Patchscope('red ?', position=9))", "Name one from -3 to 2", "[le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.Patchscope('red ?', position=at)) for at in (-3, 2)]"),
    ("le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.Patchscope('red ?', layers=[0, 9]))", "Leave the others out", "le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.Patchscope('red ?', layers=[0]))"),
    ("le.word_lenses.LatentLens('none.txt')", "or a list: corpus=[…]", "le.word_lenses.LatentLens(['a red circle'])"),
    ("le.word_lenses.LatentLens([' '])", "Give a list of texts: corpus=[…]", "le.word_lenses.LatentLens(corpus=['a red circle'])"),
    ("le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.LatentLens(['a red'], candidates=[0, 9]))", "Leave the others out", "le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.LatentLens(['a red'], candidates=[0]))"),
    ("le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.LatentLens(['red']))", "Give longer texts: corpus=[…]", "le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.LatentLens(corpus=['a red circle']))"),
    ("le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.LatentLens(['a circle']))", "Add texts with it", "le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.LatentLens(['a circle', 'a red circle']))"),
    ("le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.LatentLens(['a circle']))", 'a template with "{word}" after other words', "le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.LatentLens(['there is a {word}']))"),
    ("le.word_lenses.read_words(mllm, [one], ['red'], 'tuned')", "such as LatentLens(corpus=[…])", "le.word_lenses.read_words(mllm, [one], ['red'], le.word_lenses.LatentLens(corpus=['a red circle']))"),
    ("le.word_lenses.fit_jacobians(mllm, ['a red circle'])", "Give more or longer texts: corpus=[…]", "le.word_lenses.fit_jacobians(mllm, corpus=['a red circle'] * 1 + ['is there a circle ? ' * 5])"),
    ("le.word_lenses.JacobianLens(le.fitted(), corpus=['a red circle'])", "Pass one of them", "[le.word_lenses.JacobianLens(le.fitted()), le.word_lenses.JacobianLens(corpus=['a red circle'])]"),
    ("le.word_lenses.Patchscope(layers=[-2])", "such as [-1, 8]", "le.word_lenses.Patchscope(layers=[-1, 8])"),
    ("le.word_lenses.JacobianLens('none.safetensors')", "Fit one: fit_jacobians(mllm, corpus).save(path)", "le.word_lenses.JacobianLens(le.word_lenses.fit_jacobians(mllm, le.RUNNING).save(le.new_file()))"),
    ("le.word_lenses.JacobianLens(le.damaged_file())", "Fit it again: fit_jacobians(mllm, corpus).save(path)", "le.word_lenses.JacobianLens(le.word_lenses.fit_jacobians(mllm, le.RUNNING).save(le.new_file()))"),
    ("le.word_lenses.JacobianLens(le.other_file())", "Give a file that fit_jacobians(mllm, corpus).save(path) wrote", "le.word_lenses.JacobianLens(le.word_lenses.fit_jacobians(mllm, le.RUNNING).save(le.new_file()))"),
    ("le.word_lenses.load_jacobians(le.fitted()).save('j.pt')", "Write name.safetensors", "le.word_lenses.load_jacobians(le.fitted()).save(le.new_file())"),
    ("le.word_lenses.read_words(le.qwen(), [one], ['red'], le.word_lenses.JacobianLens(le.fitted()))", "Fit it again: fit_jacobians(mllm, corpus).save(path)", "le.word_lenses.read_words(le.qwen(), [one], ['red'], le.word_lenses.JacobianLens(le.word_lenses.fit_jacobians(le.qwen(), le.RUNNING).save(le.new_file())))"),
]  # fmt: skip

ELSEWHERE: dict[str, str] = {
    "{…} is no longer the file": "tests/tracing/word_lenses/test_jacobian_lens.py::test_a_file_that_was_changed_since_is_refused",
    "the {…} lens reads a model on this machine": "needs a server; the logit lens there is tested in tests/study/test_remote_studies.py",
    "{…} does not say where in a text its tokens are": "tests/tracing/word_lenses/test_latent_lens.py::test_a_slow_tokenizer_is_refused",
    "TransformerLens fits no Jacobian lens on this model": "no family that it knows is refused; `_fitted` passes on what it says",
    "to_lens needs TransformerLens": "nothing is installed in a test; tests/tracing/lens/test_lens.py::test_without_the_extra_the_error_says_what_to_install reads it",
}

RUNNING = (
    "what is in the image ? there is a red circle in the left lung , or a nodule in the right lung . yes",
)


def names() -> dict[str, Any]:
    """What the calls use, beside the names of `tests/test_advice.py`."""
    return {"le": sys.modules[__name__]}


def others(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A batch's inputs but for the ids."""
    return {name: value for name, value in inputs.items() if name != "input_ids"}


@cache
def centring() -> Lens:
    """A model whose last norm subtracts the mean."""
    found = interp.wrap(*tiny("llava")).to_lens()
    found.bridge.ln_final.set_original_component(torch.nn.LayerNorm(64))
    found.bridge.ln_final._uses_rms_norm_override = False
    return found


def new_file() -> Path:
    """A path for Jacobians."""
    return Path(tempfile.mkdtemp()) / "jacobians.safetensors"


@cache
def fitted() -> Path:
    """A file of Jacobians."""
    return word_lenses.fit_jacobians(llava(), RUNNING).save(new_file())


def damaged_file() -> Path:
    """A file that is cut short."""
    path = new_file()
    path.write_bytes(fitted().read_bytes()[:100])
    return path


def other_file() -> Path:
    """A safetensors file of something else."""
    path = new_file()
    save_file({"weight": torch.eye(2)}, path)
    return path


@cache
def qwen() -> Mllm:
    """A model of other weights."""
    return interp.wrap(*tiny("qwen2_5_vl"))


@cache
def lens() -> Lens:
    """A model as TransformerLens shows it."""
    return llava().to_lens()


@cache
def doubling() -> Lens:
    """A model whose logits are twice what its stream gives."""
    found = interp.wrap(*tiny("llava")).to_lens()
    found.bridge.unembed.original_component.register_forward_hook(lambda module, given, output: output * 2)
    return found
