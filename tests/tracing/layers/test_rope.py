"""Which passes can have the right rotary frequencies, and what is refused or forgotten, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from interp.errors import ModelError
from interp.tracing.layers.rope import Rope, _forget, _reach, position_ids, settle

LONG = {"rope_type": "longrope", "original_max_position_embeddings": 4}


def config(**more: Any) -> Any:
    return SimpleNamespace(
        **{"max_position_embeddings": 4, "rope_parameters": {"rope_type": "default"}, **more}
    )


class Model(nn.Module):
    """A model of a text config, with a module that keeps frequencies of a longer pass."""

    def __init__(self, text: Any, prefix: str = "") -> None:
        super().__init__()
        self.config = SimpleNamespace(get_text_config=lambda decoder: text)
        self.rotary: Any = nn.Module()
        for name, value in (("inv_freq", 2.0), ("original_inv_freq", 1.0)):
            self.rotary.register_buffer(prefix + name, torch.full((3,), value))
        self.rotary.original_max_seq_len = 4
        setattr(self.rotary, f"{prefix}max_seq_len_cached", 9)


def batch(*lengths: int, columns: int | None = None, run: int | None = None) -> dict[str, torch.Tensor]:
    """Left-padded samples of these lengths, of which the last `run` columns are run."""
    n = columns or max(lengths)
    mask = torch.tensor([[0] * (n - length) + [1] * length for length in lengths])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -(run or n) :]
    return {"attention_mask": mask, "input_ids": positions * 0, "position_ids": positions}


@pytest.mark.parametrize(
    ("text", "rope"),
    [
        (config(rope_parameters={"rope_type": "yarn", "factor": 4.0}), Rope(4)),
        (config(rope_parameters={"rope_type": "linear", "factor": 0.5}), Rope(4)),
        (
            config(rope_parameters={"a": {"rope_type": "dynamic"}, "b": {"rope_type": "dynamic"}}),
            Rope(4, ((4, True),)),
        ),
        (
            config(max_position_embeddings=9, rope_parameters={"a": {"rope_type": "dynamic"}, "b": LONG}),
            Rope(9, ((9, True), (4, False))),
        ),
        (
            config(rope_parameters={"rope_type": "default", "mrope_section": [1, 1]}),
            Rope(4, several_axes=True),
        ),
        (
            config(attn_temperature_tuning=True, no_rope_layers=[1, 0], floor_scale=8.0),
            Rope(4, temperature=8),
        ),
        (config(attn_temperature_tuning=True, no_rope_layers=[1, 1], floor_scale=8), Rope(4)),
        (config(attn_temperature_tuning=False, no_rope_layers=[1, 0], floor_scale=8), Rope(4)),
    ],
)
def test_positions_of_a_config(text: Any, rope: Rope) -> None:
    assert Rope.of(text) == rope


@pytest.mark.parametrize(
    ("lengths", "refused"), [((8, 7), True), ((8, 8), False), ((7, 6), False), ((9, 2), True)]
)
def test_padding_where_queries_are_scaled_by_column(lengths: tuple[int, ...], refused: bool) -> None:
    model = Model(config(attn_temperature_tuning=True, no_rope_layers=[0], floor_scale=8))
    if not refused:
        settle(model, batch(*lengths))
        return
    with pytest.raises(
        ModelError, match=rf"from position 7 on, .* this batch has {lengths[0]} columns and is padded"
    ):
        settle(model, batch(*lengths))


SCALINGS = {"longrope": LONG, "dynamic": {"rope_type": "dynamic"}, "default": {"rope_type": "default"}}
TOGETHER, AFTER = "longest sample of a batch", "change beyond 4 positions, so tokens after"


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("default", batch(5, 3), None),
        ("longrope", batch(4, 2), None),
        ("longrope", batch(6, 5), None),
        ("longrope", batch(5, 4), rf"{TOGETHER} \(beyond 4 positions\); these have \[5, 4\]"),
        ("dynamic", batch(4, 2), None),
        ("dynamic", batch(5, 5), None),
        ("dynamic", batch(6, 5), rf"{TOGETHER} \(beyond 4 positions\); these have \[6, 5\]"),
        ("longrope", batch(4, run=1), None),
        ("longrope", batch(6, run=1), None),
        ("longrope", batch(5, run=1), f"{AFTER} position 4 cannot"),
        ("longrope", batch(6, run=3), f"{AFTER} position 3 cannot"),
        ("dynamic", batch(4, run=2), None),
        ("dynamic", batch(6, run=1), f"{AFTER} position 5 cannot"),
        ("longrope", batch(4, 2, columns=6, run=2), None),  # padding counts for no sample
    ],
)
def test_passes_of_one_side_of_a_limit(
    kind: str, given: dict[str, torch.Tensor], message: str | None
) -> None:
    model = Model(config(rope_parameters=SCALINGS[kind]))
    if message is None:
        settle(model, given)
    else:
        with pytest.raises(ModelError, match=message):
            settle(model, given)
    forgotten = kind == "dynamic"
    assert model.rotary.inv_freq.tolist() == [1.0 if forgotten else 2.0] * 3
    assert model.rotary.max_seq_len_cached == (4 if forgotten else 9)


def test_frequencies_of_each_kind_of_layer_are_forgotten() -> None:
    model = Model(config(), "sliding_")
    del model.rotary.original_max_seq_len
    _forget(model)
    assert model.rotary.sliding_inv_freq.tolist() == [2.0] * 3
    model.rotary.original_max_seq_len = 4
    _forget(model)
    assert model.rotary.sliding_inv_freq.tolist() == [1.0] * 3
    assert "rotary.sliding_inv_freq" not in model.state_dict()  # it is no weight
    assert model.rotary.sliding_max_seq_len_cached == 4


def test_positions_that_a_pass_reaches() -> None:
    assert _reach(batch(3, 2)) == ([0, 0], [3, 2])
    assert _reach(batch(5, 3, run=2)) == ([3, 1], [5, 3])
    axes = torch.tensor([[[5, 5, 6]], [[5, 6, 9]], [[4, 5, 6]]])  # of three axes, one sample
    assert _reach({**batch(3), "position_ids": axes}) == ([4], [10])


def test_positions_do_not_count_padding() -> None:
    given, hf = {"attention_mask": batch(2, 3)["attention_mask"]}, SimpleNamespace()
    assert position_ids(hf, given).tolist() == [[0, 0, 1], [0, 1, 2]]
    assert position_ids(hf, given, 2).tolist() == [[2, 2, 3], [2, 3, 4]]
    axes = torch.zeros(3, 2, 3)

    def index(attention_mask: Any, video_grid_thw: Any = None) -> Any:
        return axes, None

    hf.model = SimpleNamespace(get_rope_index=index)
    assert position_ids(hf, given).ndim == 2
    for name in ("image_grid_thw", "video_grid_thw"):
        assert position_ids(hf, {**given, name: axes}) is axes
