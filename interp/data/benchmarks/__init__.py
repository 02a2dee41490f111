"""Readers of question-answering benchmarks, one file a source. They are public as `interp.data.NAME`."""
