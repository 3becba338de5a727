# Works with GNU make 3.81 (Apple's) and later. All paths are relative, so the project's folder may
# have spaces in its name.

# ARGS passes options on: make app ARGS="--output-dir pictures", make test ARGS="-k prompts".
ARGS ?=

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)
VENV := .venv/bin/python
# ARGS may choose tests of one part alone; pytest then ends the other part with 5, no tests found.
OR_NONE := || [ $$? -eq 5 ]

.PHONY: help setup app gallery worker test test-slow docs lint weights judge evaluate benchmark \
	benchmark-keeping benchmark-neighbours

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

setup: .venv/.ready  ## set up .venv from the pinned requirements, test tools included

app: setup  ## open the page (on localhost:8501)
	@$(VENV) -m studio app $(ARGS)

gallery: setup  ## show all runs (on localhost:5000)
	@$(VENV) -m studio gallery $(ARGS)

worker: setup  ## compute queued runs without the page, also on further machines
	@$(VENV) -m studio worker $(ARGS)

test: setup  ## run the tests
	$(VENV) -m pytest -n 2 --dist loadfile -m "not slow and not browser" $(ARGS) $(OR_NONE)
	$(VENV) -m pytest -n 2 --dist loadfile -m "browser and not slow" $(ARGS) $(OR_NONE)

test-slow: setup  ## run the tests that take many minutes
	$(VENV) -m pytest -m slow $(ARGS)

docs: setup  ## write defaults.yaml and the README's tables from the declarations of the settings
	$(VENV) -m studio.cli.settings_docs

lint: setup  ## check the code's style and types
	$(VENV) -m ruff check .
	$(VENV) -m ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(VENV) -m pyright

weights: .venv/.training  ## train the bundled weights again (hours; resumes where it stopped)
	$(VENV) -m training.data
	$(VENV) -m training.train_vqgan --resume $(ARGS)
	$(VENV) -m training.train_clip --resume $(ARGS)
	$(VENV) -m training.train_sketcher --resume $(ARGS)

judge: .venv/.training  ## train the evaluation's judge (resumes where it stopped)
	$(VENV) -m training.data
	$(VENV) -m training.train_judge --resume $(ARGS)

evaluate: .venv/.training  ## measure how well pictures match their prompts
	$(VENV) -m training.evaluate $(ARGS)

benchmark: setup  ## measure seconds per step and memory
	$(VENV) benchmarks/step.py $(ARGS)

benchmark-neighbours: setup  ## measure runs that share the machine
	$(VENV) benchmarks/neighbours.py $(ARGS)

benchmark-keeping: setup  ## measure what the film and the checkpoints cost a run
	$(VENV) benchmarks/keeping.py $(ARGS)

# The stamp is written last, so an interrupted set-up is done again.
.venv/.ready: requirements.txt requirements-dev.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.14 was found. Install one, or name it:" \
		"make setup PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c '$(SUPPORTED)' || { echo "$(PYTHON) is not a Python 3.11 to 3.14. Name one:" \
		"make setup PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make a .venv." \
		"On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear .venv
	$(VENV) -m pip install -r requirements-dev.txt
	@touch $@

.venv/.training: .venv/.ready training/requirements.txt
	$(VENV) -m pip install -r training/requirements.txt
	@touch $@
