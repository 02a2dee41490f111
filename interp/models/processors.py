"""Loads processors of checkpoints without running the checkpoint's code and without torchvision, and changes settings.

transformers builds video processors only with torchvision. Where it is not installed, a processor is loaded without its
video part, and gets one of `interp.models.without_torchvision` if its family takes videos.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, wraps
from importlib import import_module
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import PROCESSOR_MAPPING, ProcessorMixin
from transformers.models.auto.processing_auto import processor_class_from_name
from transformers.utils.hub import cached_file
from transformers.utils.import_utils import is_torchvision_available

from interp.errors import ModelError
from interp.models.resizing import class_image_settings
from interp.models.without_torchvision import (
    TorchImages,
    gemma4_unified_images,
    lfm2_vl_images,
    module_of,
    video_processor_class,
)

__all__ = [
    "gemma4_processor",
    "gemma4_unified_processor",
    "images_only",
    "known_settings",
    "lfm2_vl_processor",
    "llama4_processor",
    "load_processor",
    "minicpmv_processor",
    "molmo2_images",
    "molmo2_processor",
    "number_words",
    "pixtral_processor",
    "smolvlm_processor",
    "with_settings",
    "with_video",
]


_VIDEO = "video_processor"
_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json", "config.json")
"""Files that may name the processor's class, in transformers' order."""


_WITHOUT_EXTRAS = {
    "Gemma4Processor": "interp.models.processors:gemma4_processor",
    "Gemma4UnifiedProcessor": "interp.models.processors:gemma4_unified_processor",
    "Kimi_K25Processor": "interp.models.processors:kimi_processor",
    "Lfm2VlProcessor": "interp.models.processors:lfm2_vl_processor",
    "Llama4Processor": "interp.models.processors:llama4_processor",
    "MiniCPMV4_6Processor": "interp.models.processors:minicpmv_processor",
    "Molmo2Processor": "interp.models.processors:molmo2_processor",
    "PixtralProcessor": "interp.models.processors:pixtral_processor",
    "SmolVLMProcessor": "interp.models.processors:smolvlm_processor",
}
"""Classes that cannot be imported, built or loaded without torchvision or num2words."""


def load_processor(where: str, options: Mapping[str, Any], config: Any = None) -> Any:
    """Returns the processor saved at a folder or hub id, of transformers' own class.

    Args:
        where: A folder or hub id.
        options: `local_files_only` and `revision`, as for `from_pretrained`.
        config: The model's config. It decides if the files name no class, or one that is not in transformers.

    Raises:
        ModelError: No class is known, or the files are missing or broken.
    """
    try:
        kind = _class(where, options, config)
        made = kind.from_pretrained(where, **options, trust_remote_code=False)
        if getattr(made, _VIDEO, None) is None:
            made = with_video(made, where, **options)
    except Exception as error:  # whatever reading foreign files raises
        lines = str(error).strip().splitlines()
        raise ModelError(
            f"no processor can be loaded from {where} ({type(error).__name__}: {lines[0] if lines else 'no message'}); "
            "code that comes with it is not run. Pass processor= with one, "
            "or the folder or hub id of one."
        ) from error
    return _counting(made, config, where)


_GOT_SHRINKS = 4
"""Two convolutions of stride 2 lie between the patches of GOT-OCR's tower and its tokens."""


def _counting(processor: Any, config: Any, where: str) -> Any:
    """Sets what a processor needs to count image tokens and was saved without, as the model's config has it.

    These settings are GOT-OCR's number of tokens, and the patch size and related settings of LLaVA processors such as
    HuatuoGPT-Vision-…-hf's. Returns the processor.
    """
    if (
        getattr(config, "model_type", None) == "got_ocr2"
    ):  # not saved with the processor, whose class says 256
        processor.num_image_tokens = (
            config.vision_config.image_size // config.vision_config.patch_size // _GOT_SHRINKS
        ) ** 2
    if getattr(config, "model_type", None) != "llava" or getattr(processor, "patch_size", 0) is not None:
        return processor
    vision = config.vision_config
    processor.patch_size = vision.patch_size
    processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    processor.num_additional_image_tokens = int(vision.model_type == "clip_vision_model")
    warnings.warn(
        f"the processor of {where} names no patch_size; it is set to the vision tower's, {vision.patch_size}, with "
        f"num_additional_image_tokens={processor.num_additional_image_tokens} and the strategy "
        f"{config.vision_feature_select_strategy!r}, as the model's config has it.",
        stacklevel=3,
    )
    return processor


def with_video(processor: Any, where: str | None = None, **options: Any) -> Any:
    """Gives a processor the video processor of its class, in place; returns the processor.

    Processors of families that take no video stay as they are, and so do those of a folder without any settings of
    frames: then the model takes images.

    Args:
        processor: A processor without a video processor.
        where: A folder or hub id with the video processor's settings; None to give them as `options`.
        options: Arguments of `from_pretrained`; without `where`, the video processor's settings.
    """
    kind = video_processor_class(type(processor).__name__)
    if kind is None:
        return processor
    with suppress(OSError):  # no file has settings
        processor.video_processor = (
            kind(**options) if where is None else kind.from_pretrained(where, **options)
        )
    return processor


@cache
def images_only(kind: type[Any]) -> type[Any]:
    """Returns the processor class without `video_processor`; it handles images and text like the original.

    Pass None as the video processor or leave it out.
    """

    class WithoutVideo(ProcessorMixin):
        """The base class that `kind` gets here: it ignores the video processor that it is given."""

        def __init__(self, *parts: Any, **options: Any) -> None:
            options.pop(_VIDEO, None)
            named = dict(zip(kind.get_attributes(), parts, strict=False))
            kept = [part for name, part in named.items() if name != _VIDEO]
            super().__init__(*kept, **options)

    class ImagesOnly(kind, WithoutVideo):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != _VIDEO]

        @classmethod
        def from_args_and_dict(
            cls, args: Sequence[Any], processor_dict: Mapping[str, Any], **options: Any
        ) -> Any:
            """Like the original, with None as the video processor."""
            parts = kind.get_attributes()
            saved = {**processor_dict, **options}
            known = [
                name for name in signature(kind.__init__).parameters if name in saved and name not in parts
            ]
            whole = dict(zip(cls.get_attributes(), args, strict=True))
            return cls(*(whole.get(part) for part in parts), **{name: saved[name] for name in known})

        def save_pretrained(self, save_directory: Any, *parts: Any, **options: Any) -> Any:
            """Like the original; the settings of a video processor that was given later are saved too."""
            found = super().save_pretrained(save_directory, *parts, **options)
            own = getattr(self, _VIDEO, None)
            if own is not None:
                own.save_pretrained(save_directory)
            return found

    ImagesOnly.__name__, ImagesOnly.__qualname__ = kind.__name__, kind.__qualname__
    ImagesOnly.__module__ = kind.__module__
    return ImagesOnly


def _class(where: str, options: Mapping[str, Any], config: Any) -> type[Any]:
    """Returns transformers' processor class for a checkpoint, without its video part where that cannot be built."""
    kind: Any = next(filter(None, (_named(where, name, options) for name in _FILES)), None)
    if kind is None and type(config) in PROCESSOR_MAPPING:
        kind = PROCESSOR_MAPPING[type(config)]
    if kind is None:
        raise ModelError(f"none of {', '.join(_FILES)} names a processor class of transformers'")
    if is_torchvision_available() or _VIDEO not in kind.get_attributes():
        return kind
    return images_only(kind)


def _named(where: str, file: str, options: Mapping[str, Any]) -> type[Any] | None:
    """Returns the class that a file names; None if the file, the name, or the class in transformers is missing."""
    path = cached_file(
        where,
        file,
        **options,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    name = None if path is None else json.loads(Path(path).read_text("utf-8")).get("processor_class")
    if name in _WITHOUT_EXTRAS:
        module, make = _WITHOUT_EXTRAS[name].split(":")
        return getattr(import_module(module), make)()
    return None if name is None else processor_class_from_name(name)


_PIXTRAL = "transformers.models.pixtral"


def pixtral_processor() -> type[Any]:
    """Returns transformers' `PixtralProcessor`, also where torchvision is not installed.

    Its module imports one pure function from the torchvision image processor; the PIL one has the same function.
    """
    name = f"{_PIXTRAL}.image_processing_pixtral"
    try:
        import_module(name)
    except ModuleNotFoundError:
        sys.modules[name] = import_module(f"{_PIXTRAL}.image_processing_pil_pixtral")
        try:
            return import_module(f"{_PIXTRAL}.processing_pixtral").PixtralProcessor
        finally:
            del sys.modules[name]
    return import_module(f"{_PIXTRAL}.processing_pixtral").PixtralProcessor


def molmo2_images() -> type[Any]:
    """Returns transformers' `Molmo2ImageProcessor`, also where torchvision is not installed.

    Of torchvision it needs a bilinear resize without antialiasing and the normalisation. Both are one call of torch, on
    float pixels, as in torchvision.
    """
    whole: Any = import_module("transformers.models.molmo2.image_processing_molmo2").Molmo2ImageProcessor
    if is_torchvision_available():
        return whole

    class Molmo2ImageProcessor(whole, TorchImages):
        def resize(self, image: torch.Tensor, size: Any, **_: Any) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            """Bilinear, not antialiased: the original asks for nothing else."""
            return torch.nn.functional.interpolate(image, (size.height, size.width), mode="bilinear")

    return Molmo2ImageProcessor


def molmo2_processor() -> type[Any]:
    """Returns transformers' `Molmo2Processor`; without torchvision for images only, by `molmo2_images`."""
    whole: Any = import_module("transformers.models.molmo2.processing_molmo2").Molmo2Processor
    if is_torchvision_available():
        return whole

    return _loading_images(images_only(whole), molmo2_images())


def kimi_processor() -> type[Any]:
    """Returns transformers' `Kimi_K25Processor`; without torchvision for images only, made by `KimiImages`."""
    whole: Any = import_module("transformers.models.kimi_k25.processing_kimi_k25").Kimi_K25Processor
    if is_torchvision_available():
        return whole
    return _loading_images(images_only(whole), import_module("interp.models.families.kimi_k25").KimiImages)


def _loading_images(whole: Any, images: Any) -> type[Any]:
    """Returns a subclass of a processor, under the same name, that loads its image processor as this class."""

    class Loading(whole):
        @classmethod
        def _get_arguments_from_pretrained(
            cls, where: str, processor_dict: Any = None, **options: Any
        ) -> list[Any]:
            folder = options.pop("subfolder", "")
            made = images.from_pretrained(where, subfolder=folder, **options)
            words = cls._load_tokenizer_from_pretrained("tokenizer", where, subfolder=folder, **options)
            return [made, words]

    Loading.__name__ = Loading.__qualname__ = whole.__name__
    return Loading


def smolvlm_processor() -> type[Any]:
    """Returns transformers' `SmolVLMProcessor`, also without torchvision and num2words.

    The original needs num2words when it is built and when it writes how many frames a video has, and it asks its video
    processor when it fills a chat template.
    """
    module: Any = import_module("transformers.models.smolvlm.processing_smolvlm")
    whole = module.SmolVLMProcessor

    class SmolVLMProcessor(images_only(whole)):
        @wraps(whole.__init__)
        def __init__(self, *parts: Any, **options: Any) -> None:
            with _number_words(module):
                super().__init__(*parts, **options)

        def replace_video_token(self, *parts: Any, **options: Any) -> str:
            with _number_words(module):
                return super().replace_video_token(*parts, **options)

        def apply_chat_template(self, *parts: Any, **options: Any) -> Any:
            if getattr(self, _VIDEO, None) is not None:
                return super().apply_chat_template(*parts, **options)
            self.video_processor = SimpleNamespace(num_frames=None, fps=None)
            try:
                return super().apply_chat_template(*parts, **options)
            finally:
                del self.video_processor

    return SmolVLMProcessor


def llama4_processor() -> type[Any]:
    """Returns transformers' `Llama4Processor`; without torchvision with `Llama4ImageProcessorPil`."""
    whole: Any = import_module("transformers.models.llama4.processing_llama4").Llama4Processor
    if is_torchvision_available():
        return whole
    return _loading_images(whole, import_module("interp.models.families.llama").Llama4ImageProcessorPil)


def gemma4_processor() -> type[Any]:
    """Returns transformers' `Gemma4Processor`; without torchvision for images only.

    Before 5.23 its module imports a pure function from the torchvision image processor.
    """
    whole: Any = module_of("gemma4.processing_gemma4").Gemma4Processor
    return whole if is_torchvision_available() else images_only(whole)


def gemma4_unified_processor() -> type[Any]:
    """Returns transformers' `Gemma4UnifiedProcessor`; without torchvision for images only."""
    whole: Any = module_of("gemma4_unified.processing_gemma4_unified").Gemma4UnifiedProcessor
    if is_torchvision_available():
        return whole

    class Gemma4UnifiedProcessor(images_only(whole)):
        @classmethod
        def _get_arguments_from_pretrained(
            cls, where: str, processor_dict: Any = None, **options: Any
        ) -> list[Any]:
            sounds = module_of("gemma4_unified.feature_extraction_gemma4_unified")
            made = sounds.Gemma4UnifiedAudioFeatureExtractor.from_pretrained(where, **options)
            words = cls._load_tokenizer_from_pretrained("tokenizer", where, **options)
            return [made, gemma4_unified_images().from_pretrained(where, **options), words]

    return Gemma4UnifiedProcessor


def minicpmv_processor() -> type[Any]:
    """Returns transformers' `MiniCPMV4_6Processor`; without torchvision for images only.

    When it is built, the original asks its video processor for two settings; here the image processor gives them.
    """
    whole: Any = import_module("transformers.models.minicpmv4_6.processing_minicpmv4_6").MiniCPMV4_6Processor
    if is_torchvision_available():
        return whole

    class MiniCPMV4_6Processor(images_only(whole)):  # noqa: N801
        @wraps(whole.__init__)
        def __init__(self, image_processor: Any = None, *parts: Any, **options: Any) -> None:
            self.video_processor = image_processor
            super().__init__(image_processor, *parts, **options)
            del self.video_processor

    return MiniCPMV4_6Processor


def lfm2_vl_processor() -> type[Any]:
    """Returns transformers' `Lfm2VlProcessor`, also where torchvision is not installed."""
    whole: Any = import_module("transformers.models.lfm2_vl.processing_lfm2_vl").Lfm2VlProcessor
    return whole if is_torchvision_available() else _loading_images(whole, lfm2_vl_images())


@contextmanager
def _number_words(module: Any) -> Iterator[None]:
    """Lets a module write numbers as English words where num2words is not installed."""
    given = module.num2words
    module.num2words = given or number_words
    try:
        yield
    finally:
        module.num2words = given


_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()  # noqa: SIM905
_ONES = [*"zero one two three four five six seven eight nine".split(), *_TEENS]  # noqa: SIM905
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def number_words(number: int) -> str:
    """Returns a whole number from 0 to 999,999 as English words, as num2words writes it.

    >>> number_words(64), number_words(116), number_words(2000)
    ('sixty-four', 'one hundred and sixteen', 'two thousand')
    """
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens - 2] + (f"-{_ONES[ones]}" if ones else "")
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    many, rest = divmod(number, size)
    joint = "" if not rest else " and " if rest < 100 else ", "
    return f"{number_words(many)} {name}{joint}{number_words(rest) if rest else ''}"


def known_settings(processor: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the names of the settings of a processor's image processor, and of those of the processor itself."""
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
    """Changes settings of a processor and returns it; its image processor is built again, as by `from_pretrained`.

    Args:
        processor: The loaded processor. It is changed.
        settings: Name of a setting → its new value, such as {"max_pixels": 50176, "min_pixels": 784}.
        where: The folder or hub id of the processor, for messages.

    Raises:
        ModelError: The processor has no setting of a name, or does not take a value.
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
    """Sets a processor's own image settings of these names, if it has any: they override its image processor's.

    Raises:
        ModelError: The processor's class fixes another value for a name.
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
