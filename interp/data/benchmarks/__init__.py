"""Readers of question-answering benchmarks, one file per source. They are public as `interp.data.NAME`."""
