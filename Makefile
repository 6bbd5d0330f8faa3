# Two commands do everything: `make demo` and `make test`. Both create .venv on their first run.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed
DEMO_RUN := demo-run
WRONG_MAPS := wrong-maps
PARTICLES := src/hoarfrost/examples/beta_galactosidase/particles.star

# Optional. The Python to build .venv with, the index to take torch from, and a model for `make pictures`.
PYTHON ?=
TORCH_INDEX ?=
MODEL ?=

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs pictures clean

help:  ## say what there is to make
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: $(STAMP)  ## reconstruct a map from the example particles, into demo-run/
	$(BIN)/hoarfrost reconstruct $(PARTICLES) -o $(DEMO_RUN) --overwrite

test: $(STAMP)  ## all checks and tests, with coverage
	$(MAKE) --jobs=2 lint docs
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder --cov --cov-report=term

lint: $(STAMP)  ## style, types and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy docs/conf.py docs/extensions docs/pictures
	$(BIN)/lint-imports

docs: $(STAMP)  ## these pages as a site, in docs/_build; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet -b html docs docs/_build
	@echo "Documentation: docs/_build/index.html"

# The example run is made if there is none. With MODEL=6cvm.cif.gz (of the Protein Data Bank) wrong maps are made anew too.
pictures: $(STAMP)  ## the pictures that the pages show, from runs; needs Chromium
	test -e $(DEMO_RUN)/report.html || $(MAKE) demo
	$(BIN)/python docs/pictures/make_pictures.py --run $(DEMO_RUN) $(if $(MODEL),--model $(MODEL) --work $(WRONG_MAPS))

clean:  ## remove .venv, caches and the demo's output
	rm -rf $(VENV) $(DEMO_RUN) $(WRONG_MAPS) .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist docs/_build
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and alone, from TORCH_INDEX if given; the second step finds it there and adds all the rest.
$(STAMP): pyproject.toml constraints.txt
	@python="$(PYTHON)"; \
	for candidate in $$python python3 python3.13 python3.12 python3.11; do \
	  if $$candidate -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	      >/dev/null 2>&1; then found=$$candidate; break; fi; \
	  if [ -n "$$python" ]; then break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "hoarfrost needs Python 3.11, 3.12 or 3.13 with the venv module (on Debian and Ubuntu the package" \
	       "python3-venv); none was found. Name one with: make PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	echo "Creating $(VENV) with $$($$found --version)"; \
	$$found -m venv --clear $(VENV)
	$(PIP) install --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints.txt)"
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@
