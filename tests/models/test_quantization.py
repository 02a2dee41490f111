"""Settings of a quantisation, by name, as a dict or as transformers' object."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BitsAndBytesConfig

from interp.errors import ModelError
from interp.models import quantization
from interp.models.quantization import quantization_config


@pytest.fixture
def every_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda _: True)
    monkeypatch.setattr(quantization, "refuse_kernels", lambda *_: None)


@pytest.mark.usefixtures("every_package")
@pytest.mark.parametrize(
    ("dtype", "compute"),
    [("auto", torch.bfloat16), (torch.float16, torch.float16), (torch.float32, torch.float32)],
)
def test_four_bits_are_computed_in_the_models_dtype(dtype: Any, compute: torch.dtype) -> None:
    found = quantization_config("int4", dtype)
    assert (found.load_in_4bit, found.bnb_4bit_quant_type) == (True, "nf4")
    assert found.bnb_4bit_compute_dtype == compute


@pytest.mark.usefixtures("every_package")
def test_settings_of_transformers_are_taken() -> None:
    given = BitsAndBytesConfig(load_in_8bit=True)
    assert quantization_config(given, "auto") is given
    found = quantization_config({"quant_method": "bitsandbytes", "load_in_8bit": True}, "auto")
    assert isinstance(found, BitsAndBytesConfig)
    assert found.load_in_8bit


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("int3", "quantization is 'int8', 'int4', 'fp8', or settings .*; got 'int3'"),
        (8, "got 8"),
        ({"bits": 4}, "a dict with a quant_method; got {'bits': 4}"),
        ({"quant_method": "mxfp4"}, "the call of load is quantised by 'mxfp4', whose kernels are fetched"),
    ],
)
def test_what_is_no_quantisation_is_refused(given: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        quantization_config(given, "auto")
