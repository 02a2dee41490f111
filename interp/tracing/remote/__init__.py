"""Models on an NDIF server: each trace, score or gradient is a job that returns only what was asked for."""
