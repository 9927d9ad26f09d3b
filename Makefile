# make search   one policy search on the embedded data set, compared with none and random (< 10 min)
# make test     the test suite, without the tests marked slow
# make quick    the short tests that start no Ray: for every save (< 90 s)
# make lint     form (ruff), types (mypy), and the documentation, which must build without a warning
# make docs     the documentation as a web site in build/site, links checked
# make lowest   the quick tests with the oldest releases that setup.cfg allows
# make wheel    build the wheel, install it into a fresh environment, search with it elsewhere
# make table    measure a slice of a packaged table anew, and compare (TABLE=cifar10-1k DATA=CIFAR)
# make golden   record the golden files and run folders anew, deliberately
# make soak     everything, the slow tests too, and runs of every kind killed at random (hours)
# make bench    timings of transforms, evaluators, the engine and memory, in build/bench too
# make bench-gpu  children an hour on a GPU, with 1, 8 and 32 trained at once
# make clean, make venv
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# A fresh folder each time: a run folder is never written over.
RUN    ?= runs/search-$(shell date +%Y%m%d-%H%M%S)
WORKERS ?= 2
# Children that judge each policy: 5 would leave two points undecided.
SEEDS  ?= 12
# Of the search, in children, the final selection included; more find a little more.
BUDGET ?= 60
# Of a candidate: of 25 as of a final policy, where the paper's 5 find less (docs/results.md).
SUBPOLICIES ?= 25
# Further options of `augsearch search`; they come last, so they win.
SEARCH_ARGS ?=
PYTEST_ARGS ?=
# What an installation compiles; all that pip would compile takes a minute more.
COMPILED := matplotlib.pyplot, numba, optuna, pandas, ray, scipy.stats, torch, torchvision.transforms.v2
# Where a machine switches compiled files off, every worker and test would compile all sources again.
export PYTHONDONTWRITEBYTECODE :=
# Of `make table` (which, and where its images are) and `make bench-gpu`.
TABLE ?= fashion-200
DATA ?=
# One process a core, one thread a process; one of them has all tests that start Ray.
PARALLEL := -n auto --dist loadgroup
QUICK  := $(PARALLEL) -m "not ray and not long and not slow"

.PHONY: venv search test quick lint docs lowest wheel table golden soak bench bench-gpu clean
.DEFAULT_GOAL := test

venv: $(READY)

# The marker is written last and renamed into place: an interrupted installation is not taken for a
# finished one, and only a change of the requirements installs again.
$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "augsearch needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	@$(BIN)/python -c 'import $(COMPILED)'
	@touch $(READY).new && mv $(READY).new $(READY)

search: $(READY)
	$(BIN)/augsearch search --task reduced-fashion --kernels fused --budget $(BUDGET) \
	    --subpolicies $(SUBPOLICIES) --workers $(WORKERS) --out $(RUN)/search $(SEARCH_ARGS)
	$(BIN)/augsearch compare --task reduced-fashion --kernels fused --workers $(WORKERS) \
	    --seeds $(SEEDS) --policy none --policy random:25 --policy $(RUN)/search/policy.json --out $(RUN)/compare
	$(BIN)/augsearch report $(RUN)/search $(RUN)/compare
	@echo
	@echo "journal:     $(RUN)/search/trials.jsonl, one line per evaluation"
	@echo "policy:      $(RUN)/search/policy.txt (tuple list), policy.json (with provenance)"
	@echo "report:      $(RUN)/report.html (both runs; a page for a browser), search/report.md"
	@echo "comparison:  $(RUN)/compare/compare.md"

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL) $(PYTEST_ARGS)

quick: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(QUICK) $(PYTEST_ARGS)

lint: docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "documentation: build/site/index.html"

# -r setup.cfg: its requirements, and nothing that another file asks for.
lowest: $(READY)
	rm -rf build/lowest
	$(BIN)/uv venv --quiet --python $(BIN)/python build/lowest
	$(BIN)/uv pip install --quiet --python build/lowest/bin/python --resolution lowest-direct \
	    -r setup.cfg --extra test
	$(BIN)/uv pip install --quiet --python build/lowest/bin/python --no-deps -e .
	OMP_NUM_THREADS=1 build/lowest/bin/python -m pytest -q $(QUICK) $(PYTEST_ARGS)

wheel: $(READY)
	$(BIN)/python -m tests.packaging.wheel

table: $(READY)
	$(BIN)/python -m tests.benchmarks.table $(TABLE) --policies 3 $(if $(DATA),--data $(DATA))

golden: $(READY)
	AUGSEARCH_WRITE_GOLDEN=1 $(BIN)/python -m pytest -q tests/policies tests/test_notebooks.py
	$(BIN)/python -m tests.golden.runs
	$(BIN)/python -m tests.search.trainings
	$(BIN)/python docs/tables.py
	$(BIN)/python docs/pictures.py
	@git status --short tests/golden docs notebooks

soak: $(READY)
	$(BIN)/python -m pytest -q -m "slow or not slow" $(PYTEST_ARGS)
	$(BIN)/python -m tests.soak.kill

bench: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,bench]'
	$(BIN)/python -m tests.benchmarks.transforms
	$(BIN)/python -m tests.benchmarks.evaluators
	$(BIN)/python -m tests.benchmarks.engine
	$(BIN)/python -m tests.benchmarks.memory --workers $(WORKERS)
	$(BIN)/python -m tests.benchmarks.gpu --count

bench-gpu: $(READY)
	$(BIN)/python -m tests.benchmarks.gpu $(if $(DATA),--data $(DATA))

clean:
	rm -rf build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find policies proxy_tasks search analysis tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
