"""The checker that annotations go through in tests: beartype, taking an int where a float is asked for (PEP 484)."""

from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
