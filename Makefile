# Targets make what they need. `make help` lists them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UNFINISHED := $(VENV)/.unfinished
comma := ,
# What is installed. Core AI's packages have wheels for x86-64 Linux (glibc 2.34) and macOS 26 on Apple silicon alone:
# on an x86-64 Linux older than that `make setup EXTRAS=all,dev`.
EXTRAS ?= $(if $(filter Linux-x86_64 Darwin-arm64,$(shell uname -s)-$(shell uname -m)),all$(comma)coreai$(comma)dev,all$(comma)dev)
# Photos that `make bench` measures with: a folder or a CSV list; none: the demo's.
BENCH_IMAGES ?=
# Processes that the tests run in, one thread each: a core each, but no more than memory allows (4 GB each).
TEST_WORKERS ?= $(shell $(PYTHON) -c 'import os; print(max(1, min(4, len(os.sched_getaffinity(0)))))')
# CSV lists that `make study` asks its questions of; none: the demo's photos.
STUDY_PHOTOS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint types bench faults study verify-old-runtime verify-arm64 clean

help:
	@echo "make setup   make $(VENV) with tested versions of everything (7 GB; 3 minutes and more)"
	@echo "make demo    the whole job on real photos; results in demo-output/"
	@echo "make test    every step and target on tiny data, in minutes"
	@echo "make test-all   all tests but the studies"
	@echo "make lint    ruff, its formatter, and the import contracts"
	@echo "make types   mypy --strict over edgecsd/"
	@echo "make bench   the quick benchmark programs, on the demo's photos or BENCH_IMAGES=PHOTOS"
	@echo "make faults  every step killed twenty times and run again, full disks, damaged files; half an hour and more"
	@echo "make study   the method's study, an hour and more; resumes; or STUDY_PHOTOS='PHOTOS.csv OTHER.csv'"
	@echo "make verify-old-runtime   the exported files under the last tflite-runtime, which it installs for itself"
	@echo "make verify-arm64         the same under AArch64 builds, run by QEMU; an hour; needs Debian and qemu-user-static"
	@echo "make clean   remove caches, builds and demo-output/ ($(VENV) stays)"
	@echo "Another interpreter: make setup PYTHON=/path/to/python3.11"

setup: $(STAMP)

# A set-up that was interrupted leaves $(UNFINISHED) behind, and the next one starts from nothing.
# One pip command for everything: docs/decisions/0001-one-resolution.md. What it installs is compiled at once, on every
# core (pip does it on one): left to the first import, some packages' source warns then, and tests take warnings for
# errors. Not every file of other packages is Python 3.11; those that do not compile are nobody's imports.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "edgecsd needs Python 3.11, and '$(PYTHON)' is not one." >&2; \
	  echo "Install Python 3.11 (with its venv module), or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@if test -e $(UNFINISHED); then echo "the last set-up did not end: starting again"; rm -rf $(VENV); fi
	@rm -f $@
	@mkdir -p $(VENV) && touch $(UNFINISHED)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[$(EXTRAS)]'
	$(BIN)/python -W ignore -m compileall -qq -j 0 -x '/tests?/' $(abspath $(VENV))/lib || true
	@touch $@ && rm -f $(UNFINISHED)

demo: $(STAMP)
	$(BIN)/edgecsd demo --out demo-output

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not study and not slow" -n $(TEST_WORKERS)

test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not study" -n $(TEST_WORKERS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: $(STAMP)
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python benchmarks/speed/throughput.py --limit 64 $(if $(BENCH_IMAGES),--images "$(BENCH_IMAGES)")

faults: $(STAMP)
	$(BIN)/python benchmarks/robustness/faults.py

study: $(STAMP)
	$(BIN)/python benchmarks/study/study.py $(STUDY_PHOTOS) --work study-output

# Runtimes, files and earlier runs stay in .verify/, so that the next one is quick.
verify-old-runtime: $(STAMP)
	$(BIN)/python benchmarks/files/runtimes.py --work .verify --places old-runtime

verify-arm64: $(STAMP)
	$(BIN)/python benchmarks/files/runtimes.py --work .verify --places arm64 arm64-old-runtime

clean:
	rm -rf build dist demo-output .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage .coverage.*
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
