PYTHON ?= python

.PHONY: check format test demo bench notebooks docs

check:  ## format, lint, types, import directions
	ruff format --check .
	ruff check .
	pyright
	lint-imports

format:  ## rewrite files the way `check` wants them
	ruff format .
	ruff check --fix .

test:  ## everything that runs offline in minutes
	pytest

demo:  ## where does the organism look? leaves runs/…/report.html
	$(PYTHON) studies/fig3_layer_sweep.py

bench:  ## cost of reading and editing attention, as multiples of the plain forward
	$(PYTHON) benchmarks/reading.py
	$(PYTHON) benchmarks/editing.py
	$(PYTHON) benchmarks/indicators.py
	$(PYTHON) benchmarks/throughput.py
	$(PYTHON) benchmarks/host.py

notebooks:  ## run every notebook top to bottom
	pytest -n 0 -m notebook tests/test_notebooks.py

docs:  ## check that the documentation's examples run
	pytest -n 0 --doctest-modules interp
