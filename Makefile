# make search   one policy search on the embedded data set, compared with none and random (< 15 min)
# make test     the test suite, without the tests marked slow
# make soak     everything, the slow tests too
# make bench    timings of transforms, evaluators and the engine
# make lint, make clean, make venv
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# A fresh folder each time: a run folder is never written over.
RUN    ?= runs/search-$(shell date +%Y%m%d-%H%M%S)
WORKERS ?= 2
SEEDS  ?= 5
# Further options of `augsearch search`; they come last, so they win.
SEARCH_ARGS ?=
PYTEST_ARGS ?=

.PHONY: venv search test soak bench lint clean
.DEFAULT_GOAL := test

venv: $(READY)

# The marker is written last and renamed into place: an interrupted installation is not taken for a
# finished one, and only a change of the requirements installs again.
$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "augsearch needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $(READY).new && mv $(READY).new $(READY)

search: $(READY)
	$(BIN)/augsearch search --task reduced-fashion --searcher ppo \
	    --searcher-options '{"batch_size": 10}' --evaluator from-scratch --reward accuracy \
	    --evaluations 120 \
	    --workers $(WORKERS) --out $(RUN)/search $(SEARCH_ARGS)
	$(BIN)/augsearch report $(RUN)/search
	$(BIN)/augsearch compare --task reduced-fashion --workers $(WORKERS) --seeds $(SEEDS) \
	    --policy none --policy random:25 --policy $(RUN)/search/policy.json --out $(RUN)/compare
	@echo
	@echo "journal:     $(RUN)/search/trials.jsonl, one line per evaluation"
	@echo "policy:      $(RUN)/search/policy.txt (tuple list), policy.json (with provenance)"
	@echo "report:      $(RUN)/search/report.md"
	@echo "comparison:  $(RUN)/compare/compare.md"

test: $(READY)
	$(BIN)/python -m pytest -q $(PYTEST_ARGS)

soak: $(READY)
	$(BIN)/python -m pytest -q -m "slow or not slow" $(PYTEST_ARGS)
	$(BIN)/python -m tests.soak.kill --kills 30

bench: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,bench]'
	$(BIN)/python -m tests.benchmarks.transforms
	$(BIN)/python -m tests.benchmarks.evaluators
	$(BIN)/python -m tests.benchmarks.engine

lint: $(READY)
	$(BIN)/ruff check policies proxy_tasks search analysis tests notebooks

clean:
	rm -rf build dist *.egg-info .pytest_cache .hypothesis .ruff_cache
	find policies proxy_tasks search analysis tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
