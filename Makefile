# make demo · make test · make lint · make bench — each makes what it needs.
PYTHON ?= python3
RUN := .venv/bin/python
MINI := avsbench_data/mini
export PYTHONPATH := $(CURDIR)

.PHONY: setup demo test test-all lint bench clean-demo

setup: .venv/ready

.venv/ready: environment_config/requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(CURDIR)/.venv .venv/bin/uv pip install --quiet --requirement environment_config/requirements.txt
	touch $@

# The study in small: compose clips, preprocess them, train, evaluate with the right sounds and with the wrong ones.
demo: .venv/ready
	$(RUN) -m avsbench_data.compose --out $(MINI) --ms3 0
	$(RUN) -m avsbench_data.check --root $(MINI)/Single-source --dataset s4
	$(RUN) preprocess_s4.py --root $(MINI)/Single-source
	$(RUN) -m supervised.train --config supervised/configs/mini/s4_tpavi.yaml --out runs/mini/s4_tpavi
	$(RUN) -m supervised.evaluate --run runs/mini/s4_tpavi --sheets 6
	$(RUN) -m supervised.evaluate --run runs/mini/s4_tpavi --sound shuffled
	$(RUN) -m utils.results runs/mini --out runs/mini/table.md
	@echo "Pictures: runs/mini/s4_tpavi/sheets"

clean-demo:
	rm -rf $(MINI) runs/mini

test: .venv/ready
	$(RUN) -m pytest

test-all: .venv/ready
	$(RUN) -m pytest -m "slow or not slow"

lint: .venv/ready
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

bench: .venv/ready
	$(RUN) -m benchmarks --out benchmarks/results.md
	$(RUN) -m benchmarks.audioclip --threads 1
