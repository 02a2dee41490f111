"""Low-rank adapters as PEFT saves them, put into a loaded model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from interp.errors import ModelError
from interp.models.checkpoints.lora import adapter_config
from interp.models.configs import import_bitsandbytes

__all__ = ["WEIGHTS", "add_lora", "lora_settings"]

WEIGHTS = "adapter_model.safetensors"
_NAME = "default"
_CONVERSIONS = "_weight_conversions"
"""The attribute in which transformers keeps how it renamed the weights that it loaded last."""
_REFUSED = ("megatron_config", "corda_config", "eva_config", "loftq_config", "use_dora")
"""Settings with which PEFT imports code by name or changes the base's weights, or that transformers does not load."""


def lora_settings(folder: Path) -> dict[str, Any]:
    """Returns PEFT's settings of the adapter in a folder, checked before anything large is loaded.

    Raises:
        ModelError: PEFT is not installed, files are missing or broken, or the adapter is not a LoRA.
    """
    found = adapter_config(folder)
    kind = found.get("peft_type")
    if kind != "LORA":
        raise ModelError(
            f"lora= takes adapters of the type LORA; {folder} is of the type {kind!r:.100}. Put it into the model with "
            "PEFT and use interp.wrap(model, processor)."
        )
    odd = [name for name in _REFUSED if found.get(name)]
    if odd:
        raise ModelError(
            f"{folder}/adapter_config.json sets {', '.join(odd)}, which is not supported. Merge the adapter with PEFT "
            "and load the merged model."
        )
    if not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"{folder} holds no {WEIGHTS}. Is the download complete? A file adapter_model.bin is not read: load it "
            "with PEFT and save it again, which writes safetensors."
        )
    if find_spec("peft") is None:
        raise ModelError("lora= needs the package peft. Install it with: pip install 'interp[lora]'")
    return found


def add_lora(hf: Any, folder: Path) -> Any:
    """Returns the model with the adapter of a folder: merged into its weights, W + scale · B A, or beside quantised
    ones.

    A merged model is an ordinary one, which everything works on. Quantised weights are left as they are, and each
    adapted layer adds the adapter's part when it runs.

    Args:
        hf: The loaded model. It is changed.
        folder: The adapter's folder, which `lora_settings` has checked.

    Raises:
        ModelError: The adapter does not fit the model, or weights are offloaded.
    """
    if any(weight.is_meta for weight in hf.parameters()):
        raise ModelError(
            "lora= changes weights, but device_map= put some of them on the CPU or the disk. Merge the adapter "
            "once, without device_map: interp.load(model, lora=…).unwrap().save_pretrained(folder). Then load that "
            "folder."
        )
    before = {name for name, _ in hf.named_parameters()}
    conversions = vars(hf).get(_CONVERSIONS)
    import_bitsandbytes()  # PEFT imports it too
    try:
        from peft import PeftConfig

        report = hf.load_adapter(
            peft_config=PeftConfig.from_pretrained(str(folder)),
            adapter_state_dict=load_file(folder / WEIGHTS),
            adapter_name=_NAME,
        )
    except Exception as error:  # whatever PEFT raises
        raise _unfit(folder, f"{type(error).__name__}: {str(error)[:400]}") from error
    wrong = {
        "left over": report.unexpected_keys,
        "of another shape": [one[0] if isinstance(one, tuple) else one for one in report.mismatched_keys],
        "missing": {
            name for name in report.missing_keys if name not in before and ".base_layer." not in name
        },
    }
    if any(wrong.values()):
        raise _unfit(folder, "; ".join(f"{what}: {_listed(names)}" for what, names in wrong.items() if names))
    if getattr(hf, "hf_quantizer", None) is not None:
        return hf
    merged = _merged(hf, folder)
    vars(merged).pop(_CONVERSIONS, None)
    if conversions is not None:  # else save_pretrained would write the adapter's names
        setattr(merged, _CONVERSIONS, conversions)
    return merged


def _unfit(folder: Path, why: str) -> ModelError:
    return ModelError(
        f"the adapter in {folder} does not fit the model ({why}). Is it an adapter of another base?"
    )


def _listed(names: Any) -> str:
    found = sorted(map(str, names))
    return f"{len(found)} ({', '.join(found[:4])}{' …' if len(found) > 4 else ''})"


def _merged(hf: Any, folder: Path) -> Any:
    """Returns the model with the adapter added to the weights and without PEFT's modules."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    owners = {
        f"{path}.{name}": (module, name) for path, module in hf.named_modules() for name in module._modules
    }
    for path, module in list(hf.named_modules()):
        if isinstance(module, BaseTunerLayer):
            try:
                module.merge(safe_merge=True)  # pyright: ignore[reportCallIssue]
            except ValueError as error:  # the sums are not finite
                raise _unfit(folder, str(error)) from error
            inner = module.get_base_layer()
        elif isinstance(module, ModulesToSaveWrapper):
            inner = module.modules_to_save[_NAME]
        else:
            continue
        owner, name = owners[path if "." in path else f".{path}"]
        setattr(owner, name, inner)
    hf._hf_peft_config_loaded = False
    del hf.peft_config
    return hf.requires_grad_(True)
