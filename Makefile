# Every target sets itself up in .venv; a second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
OFFLINE := sh tests/offline.sh
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: run run-all test test-all lab bench full notebooks texts clean

run: $(STAMP)  ## execute the six notebooks on the embedded data; the results are in build/
	$(BIN)/python -m helpers run $(if $(DATASET),--dataset "$(DATASET)")

run-all: $(STAMP)  ## also the appendix, which is for a second reading
	$(BIN)/python -m helpers run --all $(if $(DATASET),--dataset "$(DATASET)")

test: $(STAMP)  ## lint, unit tests, every notebook once from an empty folder
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(OFFLINE) $(BIN)/python -m pytest -m "not all"

test-all: $(STAMP)  ## also each notebook alone first, a reader's own data, Colab's set-up cell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(OFFLINE) $(BIN)/python -m pytest -m "not needs_registry"
	$(BIN)/python -m pytest -m needs_registry

lab: $(STAMP)  ## JupyterLab on the course
	$(BIN)/jupyter lab notebooks

full: $(STAMP)  ## the GPU profile: data and checkpoint from the hub
	$(BIN)/python -m helpers run --profile full --output-dir build-full

bench: $(STAMP)  ## the measurements in benchmarks/
	@for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

notebooks: $(STAMP)  ## from notebooks/text/ through execution to notebooks/; ONLY="03 A1" for some of them
	$(BIN)/python -m helpers run --in-place --all $(ONLY)

texts: $(STAMP)  ## the other way, after an edit in JupyterLab: from notebooks/ to notebooks/text/
	$(BIN)/python -c 'from helpers.notebooks import counterpart, find_notebooks, to_text; [to_text(p, counterpart(".", p)) for p in find_notebooks(".", appendix=True)]'
	$(BIN)/ruff format --quiet notebooks/text

clean:  ## remove what the other targets made, the environment excepted
	rm -rf build build-full

$(STAMP): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $(STAMP)
