"""The errors `interp` raises. Each message says what was expected, what came, and what to do.

A study records any `InterpError` about one sample as that sample's failure and continues. Any other
exception is a bug and stops the run.
"""

from __future__ import annotations

__all__ = [
    "BoxError",
    "DataError",
    "EditError",
    "ImageError",
    "ImageTokenMismatch",
    "InterpError",
    "MapError",
    "MethodError",
    "ModelError",
    "PromptError",
    "RunError",
    "SampleError",
    "ServerError",
    "SiteError",
    "StudyError",
]


class InterpError(ValueError):
    """Base of every error raised on purpose by this package."""


class SampleError(InterpError):
    """A sample that cannot be used: no image, an empty question, options without an answer."""


class ImageError(SampleError):
    """An image that is missing, unreadable, too large or not an image."""


class BoxError(SampleError):
    """A box that is empty, inverted, not finite, or outside its image."""


class PromptError(InterpError):
    """A prompt or target that cannot be rendered or tokenised."""


class DataError(InterpError):
    """A data file or row that does not hold what its reader expects."""


class ModelError(InterpError):
    """A model that cannot be loaded, recognised or run with these arguments."""


class ImageTokenMismatch(ModelError):  # noqa: N818 – the name DESIGN fixes
    """The prompt does not hold as many image tokens as the image's footprints."""


class SiteError(InterpError):
    """Layers, heads, queries or keys that the model or the prompt does not have."""


class EditError(InterpError):
    """An edit that cannot be applied, such as a row with every key knocked out under renormalisation."""


class MapError(InterpError):
    """A map or mask of the wrong shape or type for a metric."""


class MethodError(InterpError):
    """An invalid parameter of a method."""


class RunError(InterpError):
    """A run folder that cannot be written, read or resumed."""


class ServerError(RunError):
    """An NDIF server that cannot be reached, refuses or fails, or cannot do what was asked; a study stops at it."""


class StudyError(InterpError):
    """An invalid study declaration."""
