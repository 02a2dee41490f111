"""Models on an NDIF server: each trace, score or gradient is a job there, and only what was asked for comes back."""
