"""Names of parameters in the names of tests."""

import re
from typing import Any


def without_address(value: Any) -> str:
    """A value as text, the same in every process: pytest's workers must collect the same tests."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))
