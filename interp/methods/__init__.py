"""Published ways to make a model look elsewhere, each a value whose `answer` runs one batch."""

from __future__ import annotations

from interp.methods.answer import Answer
from interp.methods.method import Method, Samples
from interp.methods.plain import Plain

__all__ = ["Answer", "Method", "Plain", "Samples"]
