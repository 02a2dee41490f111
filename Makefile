PYTHON ?= python

.PHONY: check format test test-all versions demo bench notebooks docs doctest site pictures

check:  ## format, lint, types, import directions
	ruff format --check .
	ruff check .
	pyright
	lint-imports

format:  ## rewrite files the way `check` wants them
	ruff format .
	ruff check --fix .

test:  ## what to run often: every behaviour once, offline, in minutes
	pytest

test-all: versions  ## the slow tests too: every combination of the matrices, every notebook; before an issue is closed
	pytest -m "not gpu and not remote"

versions:  ## the lowest and the newest versions of what interp stands on
	$(PYTHON) -m tests.versions lowest highest

demo:  ## where does the organism look? leaves runs/fig3.html
	$(PYTHON) studies/fig3_layer_sweep.py

bench:  ## cost of reading and editing attention, as multiples of the plain forward
	$(PYTHON) benchmarks/reading.py
	$(PYTHON) benchmarks/editing.py
	$(PYTHON) benchmarks/indicators.py
	$(PYTHON) benchmarks/throughput.py
	$(PYTHON) benchmarks/host.py
	$(PYTHON) benchmarks/batch_memory.py
	$(PYTHON) benchmarks/memory.py
	$(PYTHON) benchmarks/cold_start.py

notebooks:  ## run every notebook top to bottom and store its outputs, figures as pictures
	$(PYTHON) notebooks/stored_outputs.py

docs: doctest site  ## check the documentation's examples, then build the site

doctest:  ## check that the documentation's examples run; two modules need lmms-eval, which lies apart
	OMP_NUM_THREADS=1 pytest -n 0 --doctest-modules interp --ignore interp/lmms_eval/lmms_model.py --ignore interp/lmms_eval/manifest.py

site:  ## build the documentation site, offline, with its links checked: open build/site/index.html
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

pictures:  ## make the documentation's pictures anew, in chromium
	$(PYTHON) docs/building/gallery_pictures.py
	$(PYTHON) docs/look_picture.py
	$(PYTHON) docs/curation_screenshots.py
	$(PYTHON) docs/vision_tower_picture.py
