"""The vision tower: reads and edits of its attention, its hidden states, its resampler."""
