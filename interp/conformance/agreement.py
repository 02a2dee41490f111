"""How far two ways of computing the same rows and logits are apart, and how far is too far."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp.conformance.result import Measured
from interp.conformance.subject import Subject

__all__ = ["Agreement", "relative", "same_greedy"]


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest expected value; NaN where either holds one."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


class Agreement:
    """Gathers differences of rows and logits, and judges them.

    The error of a row is Σ|found − expected| / Σ expected over the keys compared (the sum alone where nothing
    is expected): 0 when equal, up to 2 when nothing overlaps. It does not get smaller with more keys, as a
    difference of single probabilities does.

    In float32 the largest error of any row, and of the logits over their largest, must stay within 1e-5. In
    half precision every layer adds its rounding to the next, so a limit that no correct deep model exceeds
    would pass a row of the wrong temperature. The first layer's rows come from the same numbers either way:
    their median error must stay within 1.25 eps, everyone's within 8 eps, and so must the logits.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.wrong: list[str] = []
        self._rows: list[np.ndarray] = []
        self._first: list[np.ndarray] = []
        self._logits = 0.0

    def rows(self, found: Float[np.ndarray, "layer *other key"], expected: np.ndarray) -> None:
        """Compare rows, the first layer's first; a NaN is an error without bound."""
        mass = expected.sum(-1)
        off = np.abs(found - expected).sum(-1)
        errors = np.nan_to_num(np.where(mass > 0, off / np.where(mass > 0, mass, 1), off), nan=np.inf)
        self._rows.append(errors.reshape(-1))
        self._first.append(errors[0].reshape(-1))

    def logits(self, found: np.ndarray, expected: np.ndarray) -> None:
        """Compare the logits of one position."""
        self._logits = max(self._logits, float(np.nan_to_num(relative(found, expected), nan=np.inf)))

    def measured(self, detail: str) -> Measured:
        """The verdict; `wrong` things fail it and replace the detail."""
        eps = self.subject.eps
        errors, first = (np.concatenate(parts or [np.zeros(1)]) for parts in (self._rows, self._first))
        if self.subject.exact:
            value, limit = max(float(errors.max()), self._logits), self.subject.tolerance
            what, holds = "largest difference of a row (of its mass) or of the logits (of the largest)", True
        else:
            value, limit = float(np.median(first)), 1.25 * eps
            what = "difference of the first layer's rows (of their mass, median)"
            middle = float(np.median(errors))
            holds = middle <= 8 * eps and self._logits <= 8 * eps
            detail += f"; all layers {middle:.2g}, logits {self._logits:.2g}, both ≤ {8 * eps:.2g}"
        return Measured(value, what, limit, "; ".join(self.wrong) or detail, holds=holds and not self.wrong)


def same_greedy(subject: Subject, answer: str, ids: Tensor, logits: Tensor) -> tuple[int, str | None]:
    """How many of eager's greedy steps can be compared, and what is wrong with the answer, if anything is.

    Where eager's two best tokens are closer than rounding, another exact way may take the other one: from there
    on nothing is compared.

    Args:
        subject: the model under test.
        answer: its answer.
        ids: eager's tokens, (step,).
        logits: eager's logits of each step, (step, token_id).
    """
    best = logits.float().topk(2, dim=-1).values
    near = subject.tolerance if subject.exact else 3 * subject.eps
    close = (best[:, 0] - best[:, 1]) <= near * logits.float().abs().amax(dim=-1)
    steps = int(close.nonzero()[0]) if bool(close.any()) else len(ids)
    text = subject.mllm.processor.tokenizer.decode(ids[:steps], skip_special_tokens=True).strip()
    same = answer == text if steps == len(ids) else answer.startswith(text)
    return min(steps + 1, len(ids)), None if same else f"{answer!r}, eager {text!r}"
