"""What studies of a method share: the heads that it refers to are ranked before the study runs."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from interp.methods import Method
from interp.run import Workers
from interp.study.model_spec import OpenModel
from interp.study.refinement.task import references, resolved
from interp.study.study import Study

__all__ = ["WithMethod"]

R = TypeVar("R")
Own = TypeVar("Own", bound="WithMethod[Any]")


class WithMethod(Study[R]):
    """A study with a `method`, whose heads may be the top of a ranking that has not run yet."""

    method: Method

    @property
    def unresolved(self) -> bool:
        """Whether the method refers to heads that have to be ranked first."""
        return bool(references(self.method))

    def resolved(
        self: Own,
        out: str | os.PathLike[str] = "runs",
        *,
        workers: int | Workers = 1,
        progress: bool = True,
        mllm: OpenModel | None = None,
    ) -> Own:
        """The study with the heads its method refers to; a ranking whose run is under `out` is not run again.

        Args:
            out: The folder that holds runs.
            workers: Processes, or an `interp.run.Workers`, when a ranking has to run.
            progress: Show progress on stderr.
            mllm: The study's model, when it is open already.
        """
        if not self.unresolved:
            return self
        options: dict[str, Any] = {"workers": workers, "progress": progress, "mllm": mllm}
        return self.replace(method=resolved(self.method, out, **options))
