"""A public suite of checks: are a model's adapter and everything read through it right?

```python
from interp.conformance import check

result = check("llava")  # tiny random weights; or a folder, a hub id, an Mllm
assert result.passed, result.failures
```

Names are imported on first use, so that the record of earlier checks can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.conformance.check_result import CheckResult, Conformance, Measured
    from interp.conformance.faulty_adapters import BREAKS, broken_adapter
    from interp.conformance.subject import Subject
    from interp.conformance.suite import CHECKS, Check, check

__all__ = [
    "BREAKS",
    "CHECKS",
    "Check",
    "CheckResult",
    "Conformance",
    "Measured",
    "Subject",
    "broken_adapter",
    "check",
]

_HOMES = {
    "faulty_adapters": ("BREAKS", "broken_adapter"),
    "check_result": ("CheckResult", "Conformance", "Measured"),
    "subject": ("Subject",),
    "suite": ("CHECKS", "Check", "check"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"interp.conformance has no {name!r}; its public names are {', '.join(__all__)}.")
