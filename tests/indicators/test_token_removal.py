from __future__ import annotations

import numpy as np
import pytest

import tests.tiny as small
from interp.errors import SiteError
from interp.indicators import HideTokens, TokenKnockout
from interp.inputs.prompt import GENERIC_PROMPT, Target
from interp.tracing import Knockout, Mllm, Site, image_mask, wrap


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(small.llava(), small.processor())


def test_each_token_holds_what_hiding_it_alone_costs(mllm: Mllm) -> None:
    target = Target("yes")
    maps = TokenKnockout([1, 2])(mllm, small.samples()[:2], target=target)
    for sample, found in zip(small.samples()[:2], maps, strict=True):
        plain = mllm.score(sample, target).values[0]
        for j in (0, 9):
            edit = Knockout(Site(layers=[1, 2], queries="after_image", keys=image_mask(np.arange(16) == j)))
            alone = mllm.score(sample, target, edits=[edit]).values[0]
            assert found.values[j] == pytest.approx(plain - alone, abs=1e-5)
        assert found.dims == ("token",)
        assert np.ptp(found.values) > 1e-3
        assert found.attrs["plain"] == pytest.approx(plain, abs=1e-5)
    np.testing.assert_array_equal(maps[0].position, maps.tokens[0].image)
    tokens = maps.tokens
    ran = sum(t.length + 16 * len(t.positions("after_image")) for t in tokens)
    assert (maps.cost.forwards, maps.cost.tokens) == (4, ran)


def test_samples_of_several_lengths_are_as_alone(
    mllm: Mllm,
) -> None:
    indicator = TokenKnockout(queries="last", batch=5)
    together = indicator(mllm, small.samples())
    np.testing.assert_array_equal(together[2], indicator(mllm, small.samples()[2])[0])
    np.testing.assert_array_equal(together[2], indicator(mllm, mllm.encode(small.samples()[2:]))[0])
    generic = indicator(mllm, small.samples()[2], prompt=GENERIC_PROMPT)[0]
    prefix = mllm.prefix(small.samples()[2:], prompt=GENERIC_PROMPT)
    np.testing.assert_array_equal(indicator(mllm, prefix)[0], generic)  # its own prompt
    np.testing.assert_array_equal(indicator(mllm, prefix.batch)[0], generic)
    assert not np.allclose(generic, together[2], atol=1e-4)
    answer = mllm.trace(small.samples()[2]).logits.values[0].argmax()
    word = mllm.processor.tokenizer.decode([answer])
    np.testing.assert_allclose(
        together[2], indicator(mllm, small.samples()[2], target=Target(word))[0], atol=1e-6
    )


def test_it_describes_itself(unchecked: None) -> None:
    assert TokenKnockout().to_dict() == {
        "indicator": "token knockout",
        "layers": "all",
        "queries": "after_image",
    }
    assert TokenKnockout([1], batch=4) == TokenKnockout((1,))
    assert hash(TokenKnockout([1])) == hash(TokenKnockout((1,), batch=2))
    assert TokenKnockout([1], "last").removal == HideTokens([1], "last")
    with pytest.raises(SiteError, match="queries of HideTokens is 'after_image' or 'last'"):
        TokenKnockout(queries="text")  # pyright: ignore[reportArgumentType]
