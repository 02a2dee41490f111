"""Videos, left-padded in one batch, against the long way round: eager, alone, without cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.utils._python_dispatch import TorchDispatchMode

import interp
from interp.conformance.tiny import tiny
from interp.tracing import Knockout, Rows, Site, wrap
from tests.tracing.reference_attention import greedy

FAMILIES = (
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "llava_onevision",
    "llava_next_video",
    "smolvlm",
    *(pytest.param(one, marks=pytest.mark.slow) for one in ("qwen3_5", "qwen3_5_moe", "qwen3_vl_moe")),
)
N = 2  # generated tokens


@pytest.fixture(scope="module", params=FAMILIES)
def mllm(request):
    return wrap(*tiny(request.param))


@pytest.fixture(scope="module")
def eager(mllm):
    return tiny(mllm.family, "eager")[0]


def samples() -> list[interp.Sample]:
    """Two videos with questions of two lengths; the sizes, and with them Qwen's numbers of tokens, differ."""
    rng = np.random.default_rng(3)
    wide, tall = (rng.integers(0, 255, (4, *shape, 3), dtype=np.uint8) for shape in ((60, 90), (80, 50)))
    return [
        interp.Sample(video=wide, fps=2.0, question="where is the nodule ?", boxes=[(20, 20, 60, 50, 2)]),
        interp.Sample(video=tall, times=[0, 1, 3, 8], question="is there a red circle in the left lung ?"),
    ]


@pytest.mark.covering
@pytest.mark.parametrize("executor", ["tap", "source"])
def test_rows_and_answers_of_videos_are_eagers(mllm, eager, executor):
    trace = mllm.using(executor).trace(
        samples(), reads=[Rows(Site(queries="after_image", keys="all"))], generate=N
    )
    for i, sample in enumerate(samples()):
        reference = greedy(eager, mllm.encode(sample).inputs, N)
        # float32 sums in another order: experts and DeltaNet layers add to them
        assert_allclose(trace.logits[i], reference.logits[0], atol=6e-5)
        rows = trace[i].reads[0]
        assert_allclose(rows[0], reference.attention[0][:, :, rows["query"].values], atol=3e-6)
        decode = mllm.processor.tokenizer.decode
        assert trace.answers[i] == decode(reference.ids, skip_special_tokens=True).strip()


@pytest.mark.by_default(mllm=["qwen3_vl"], executor=["source"])
@pytest.mark.parametrize("executor", ["tap", "source"])
def test_a_knockout_of_a_frame_is_eagers(mllm, eager, executor):
    encoded = mllm.encode(samples())
    masks = [tokens.shows(1) for tokens in encoded.tokens]
    layers = mllm.attention_layers[-2:]
    site = Site(layers=layers, queries=("after_image", "answer"), keys=interp.image_mask(masks))
    trace = mllm.using(executor).trace(samples(), edits=[Knockout(site, steps="all")], generate=1)
    for i, mask in enumerate(masks):
        tokens = trace.tokens[i]

        def hide(layer: int, n: int, tokens=tokens, mask=mask) -> torch.Tensor | None:
            hidden = torch.zeros(n, n, dtype=torch.bool)
            hidden[int(tokens.image[-1]) + 1 :, tokens.image[mask]] = True
            return hidden if layer in layers else None

        reference = greedy(eager, mllm.encode(samples()[i]).inputs, 1, hide=hide)
        assert_allclose(trace.logits[i], reference.logits[0], atol=6e-5)


@pytest.mark.by_default(mllm=["qwen2_5_vl", "qwen3_vl", "smolvlm"])
def test_positions_of_videos_are_the_models_own(mllm):
    """Alone and padded; of families without axes they count the tokens."""
    together = mllm.encode(samples())
    for i, sample in enumerate(samples()):
        one = mllm.encode(sample)
        mine = together.positions[..., i, int(together.pad[i]) :]
        assert torch.equal(mine, one.positions[..., 0, :])
        index = getattr(mllm.hf.model, "get_rope_index", None)
        if index is None:
            assert torch.equal(mine, torch.arange(mine.shape[-1]))
            continue
        names = ("input_ids", "mm_token_type_ids", "video_grid_thw", "second_per_grid_ts")
        own = index(**{name: one.inputs[name] for name in names if name in one.inputs})[0]
        assert torch.equal(one.positions, own)


@pytest.mark.by_default(mllm=["qwen2_5_vl"], executor=["tap"])
@pytest.mark.parametrize("executor", ["tap", "source"])
def test_a_prefix_holds_the_video(mllm, executor):
    reads = [Rows(Site(queries="after_image", keys="all"))]
    for prompt in (interp.PAPER_PROMPT, interp.GENERIC_PROMPT):
        whole = mllm.trace(samples(), prompt=prompt, reads=reads, generate=N)
        after = mllm.using(executor).trace(mllm.prefix(samples()), prompt=prompt, reads=reads, generate=N)
        assert_allclose(after.logits, whole.logits, atol=6e-5)
        assert after.answers == whole.answers
        for mine, reference in zip(after, whole, strict=True):
            assert_allclose(mine.rows, reference.rows, atol=3e-6)
        # padding between prefix and rest would wear the states of DeltaNet layers off: whole prompts run there, but for
        # the generic prompt, which is equally long for all samples
        served = not mllm.linear_heads or prompt == interp.GENERIC_PROMPT
        assert (after.cost.tokens < whole.cost.tokens) == served


@pytest.mark.by_default(mllm=["qwen3_vl"])
def test_a_video_under_another_prompt_is_encoded_as_if_first(mllm):
    again = mllm.encoder.again(mllm.encode(samples()), interp.GENERIC_PROMPT)
    fresh = wrap(*tiny(mllm.family)).encode(samples(), interp.GENERIC_PROMPT)
    assert again.inputs.keys() == fresh.inputs.keys()
    for name, value in fresh.inputs.items():
        assert torch.equal(again.inputs[name], value), name
    for mine, theirs in zip(again.tokens, fresh.tokens, strict=True):
        assert (mine.frames == theirs.frames).all()
        assert (mine.times == theirs.times).all()


@pytest.mark.by_default(mllm=["qwen2_vl"])
def test_images_and_videos_in_one_batch(mllm):
    """Each as alone, where the family can join them; else it says why not."""
    picture = interp.Sample(np.full((60, 80, 3), 90, np.uint8), "where is the nodule ?")
    mixed = [samples()[0], picture]
    trace = mllm.trace(mixed, reads=[Rows(Site(keys="all"))])
    for i, sample in enumerate(mixed):
        alone = mllm.trace(sample, reads=[Rows(Site(keys="all"))])
        assert_allclose(trace.logits[i], alone.logits[0], atol=3e-5)
        assert_allclose(trace[i].rows, alone[0].rows, atol=3e-6)


@pytest.mark.by_default(family=["llava_onevision"])
@pytest.mark.parametrize("family", ["llava_onevision", "llava_next_video"])
def test_videos_of_several_lengths_are_refused_in_one_batch(family):
    mllm = wrap(*tiny(family))
    shown = np.zeros((3, 60, 60, 3), np.uint8)
    few = interp.Sample(video=shown[:2], fps=1, question="where ?")
    many = interp.Sample(video=shown, fps=1, question="where ?")
    with pytest.raises(interp.errors.ModelError, match=r"the same number of frames; these have \[2, 3\]"):
        mllm.trace([few, many])
    assert len(mllm.answers([few, many], generate=1, batch_size=1)) == 2


class Squares(TorchDispatchMode):
    """Gathers the shapes of tensors whose last two dimensions are both `n`."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n, self.found = n, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, torch.Tensor) and tuple(one.shape[-2:]) == (self.n, self.n):
                self.found.append(tuple(one.shape))
        return made


def test_sixteen_frames_are_read_without_a_square():
    """No operation makes a token × token tensor; in eager attention every layer does."""
    sample = interp.Sample(
        video=np.random.default_rng(0).integers(0, 255, (16, 84, 84, 3), dtype=np.uint8),
        fps=2.0,
        question="where ?",
    )
    reads = [Rows(Site(queries="last", keys="image"))]
    found = {}
    for attention in ("sdpa", "eager"):
        mllm = wrap(*tiny("qwen2_vl", attention))
        n = mllm.encode(sample).tokens[0].length
        with Squares(n) as squares:
            rows = mllm.trace(sample, reads=reads)[0].rows
        found[attention] = (squares.found, rows.values)
    assert found["sdpa"][0] == []
    assert (1, 4, n, n) in found["eager"][0]
    assert_allclose(found["sdpa"][1], found["eager"][1], atol=3e-6)
