"""Quantities that rows alone do not give: norms of values and of hidden states, rollout."""
