"""Settings of a quantisation, made from a short name, a dict or a config object of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch

from interp.errors import ModelError
from interp.models.configs import refuse_kernels

__all__ = ["QUANTIZATIONS", "quantization_config"]


def _torchao(name: str) -> Callable[[Any], Any]:
    def make(_: Any) -> Any:
        from transformers import TorchAoConfig

        return TorchAoConfig(getattr(import_module("torchao.quantization"), name)())

    return make


def _nf4(dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    compute = dtype if isinstance(dtype, torch.dtype) else torch.bfloat16
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


QUANTIZATIONS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "int8": ("torchao", _torchao("Int8WeightOnlyConfig")),
    "int4": ("bitsandbytes", _nf4),
    "fp8": ("torchao", _torchao("Float8WeightOnlyConfig")),
}
"""Short name → the package that it needs, and a function of the dtype that makes transformers' config: weights in 8-bit
integers or floats with a scale for each row, or in NF4; products in the model's dtype."""


def quantization_config(given: Any, dtype: str | torch.dtype) -> Any:
    """Returns the settings of a quantisation as transformers takes them; None without one.

    Args:
        given: A name in `QUANTIZATIONS`, settings with a "quant_method" as a config.json holds them, or a config object
            of transformers, such as `transformers.BitsAndBytesConfig(load_in_4bit=True)`.
        dtype: The dtype of the weights that are not quantised; "auto" is taken for bfloat16.

    Raises:
        ModelError: `given` is none of these, a package is not installed, or transformers would fetch the method's
            kernels from the hub.
    """
    if given is None:
        return None
    config = _made(given, dtype)
    if not hasattr(config, "quant_method") or not callable(getattr(config, "to_dict", None)):
        raise ModelError(_wrong(given))
    refuse_kernels("the call of load", SimpleNamespace(quantization_config=config))
    return config


def _made(given: Any, dtype: str | torch.dtype) -> Any:
    if isinstance(given, str) and given in QUANTIZATIONS:
        package, make = QUANTIZATIONS[given]
        if find_spec(package) is None:
            raise ModelError(
                f"quantization={given!r} needs the package {package}. Install it with: pip install "
                "'interp[quantization]'"
            )
        return make(dtype)
    if isinstance(given, Mapping):
        from transformers.quantizers.auto import AutoQuantizationConfig

        refuse_kernels("the call of load", SimpleNamespace(quantization_config=dict(given)))
        try:
            return AutoQuantizationConfig.from_dict(dict(given))
        except Exception as error:  # whatever transformers says of settings it does not know
            raise ModelError(f"{_wrong(given)} ({type(error).__name__}: {str(error)[:300]})") from error
    return given


def _wrong(given: Any) -> str:
    return (
        f"quantization is {', '.join(map(repr, QUANTIZATIONS))}, or settings as transformers takes them, such as "
        f"transformers.BitsAndBytesConfig(load_in_4bit=True) or a dict with a quant_method; got {given!r:.300}."
    )
