"""A processor with some of its settings changed, such as how many pixels an image may have."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from inspect import signature
from typing import Any

from interp.errors import ModelError
from interp.models.resizing import class_image_settings

__all__ = ["known_settings", "with_settings"]


def known_settings(processor: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of what can be set: of its image processor, and of the processor itself (not its parts)."""
    images = getattr(processor, "image_processor", None)
    annotations = getattr(getattr(type(images), "valid_kwargs", None), "__annotations__", {})
    names = {
        name for kind in type(processor).__mro__ if "__init__" in vars(kind) for name in _parameters(kind)
    }
    parts = (
        {*type(processor).get_attributes(), "chat_template"}
        if hasattr(processor, "get_attributes")
        else set()
    )
    own = sorted(name for name in names - parts if hasattr(processor, name))
    return tuple(sorted(annotations)), tuple(own)


def _parameters(kind: type[Any]) -> list[str]:
    found = signature(kind.__init__).parameters.values()
    return [
        one.name
        for one in found
        if one.name != "self" and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    ]


def with_settings(processor: Any, settings: Mapping[str, Any], where: str) -> Any:
    """The processor, set anew: its image processor is built again with these settings, as `from_pretrained` would.

    Args:
        processor: A processor as loaded. It is changed.
        settings: Name → value, such as {"max_pixels": 50176, "min_pixels": 784}.
        where: Whose processor it is, for messages.

    Raises:
        ModelError: A name that this processor does not have, or a value that it does not take.
    """
    of_images, own = known_settings(processor)
    unknown = [name for name in settings if name not in (*of_images, *own)]
    if unknown or not settings:
        raise ModelError(
            f"the processor of {where} has no setting {', '.join(map(repr, unknown)) or '(none was given)'}. It has "
            f"{', '.join((*of_images, *own))}."
        )
    for_images = {name: value for name, value in settings.items() if name in of_images}
    if for_images:
        processor.image_processor = _images(processor.image_processor, for_images, where)
        _override(processor, for_images)
    for name in settings.keys() - for_images.keys():
        before, value = getattr(processor, name), settings[name]
        if before is not None and type(before) is not type(value):
            kinds = type(before).__name__, type(value).__name__
            raise ModelError(
                f"the processor of {where} has a {kinds[0]} as {name}; got a {kinds[1]}: {value!r:.100}."
            )
        setattr(processor, name, value)
    return processor


def _override(processor: Any, settings: Mapping[str, Any]) -> None:
    """Sets a processor's own image settings where it has some of these names, which stand over its image processor's.

    Raises:
        ModelError: Its class has other values as defaults, which cannot be set.
    """
    fixed = {name: value for name, value in class_image_settings(processor).items() if name in settings}
    if odd := [name for name, value in fixed.items() if value != settings[name]]:
        raise ModelError(
            f"{type(processor).__name__} of transformers {version('transformers')} gives its image processor "
            f"{', '.join(f'{name}={fixed[name]!r}' for name in odd)} in each call, whatever is set; newer versions "
            "take it as a setting. Upgrade transformers."
        )
    own = getattr(processor, "images_kwargs", None) or {}
    if new := {name: value for name, value in settings.items() if name in own}:
        processor.images_kwargs = {**own, **new}


def _images(images: Any, settings: Mapping[str, Any], where: str) -> Any:
    from huggingface_hub.dataclasses import validate_typed_dict

    kind = type(images)
    try:
        validate_typed_dict(kind.valid_kwargs, dict(settings))
        return kind.from_dict(images.to_dict(), **settings)
    except Exception as error:  # whatever transformers says of a value that it does not take
        lines = str(error).strip().splitlines() or ["no message"]
        raise ModelError(
            f"the processor of {where} does not take {dict(settings)!r:.300} ({type(error).__name__}: "
            f"{' '.join(line.strip() for line in lines)[:300]})."
        ) from error
