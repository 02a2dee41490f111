"""Tables of advice by room: calls that fail, the words that advise, and the calls that follow them.

Each module has `ROWS`, as described in `tests/test_advice.py`; `names()`, what its calls use; and `ELSEWHERE`, the
messages whose advice cannot be followed in a row here, each with the test that does it or the reason.
"""
