"""Numbers held still: what studies hash, what they measure, and what their pages and figures show."""
