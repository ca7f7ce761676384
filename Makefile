# make demo · make test · make lint · make bench — each makes what it needs.
PYTHON ?= python3
RUN := .venv/bin/python
MINI := avsbench_data/mini
ROWS := no_prompt point_local point_global point_dense heatmap_box
COMPARED := heatmap foreground largest_proposal random_proposal
# The miniature's networks gain nothing by a second thread, and lose much by it where something else runs.
ONE := OMP_NUM_THREADS=1
export PYTHONPATH := $(CURDIR)

.PHONY: setup demo test test-all lint bench clean-demo

setup: .venv/ready

.venv/ready: environment_config/requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(CURDIR)/.venv .venv/bin/uv pip install --quiet --requirement environment_config/requirements.txt
	touch $@

# The study in small: compose clips, preprocess them, evaluate the zero-shot rows beside what they must beat, show one
# clip as anybody's video, then train a segmentor and evaluate it with the right sounds and with the wrong ones.
demo: .venv/ready
	$(RUN) -m avsbench_data.compose --out $(MINI) --ms3 0
	$(RUN) -m avsbench_data.check --root $(MINI)/Single-source --dataset s4
	$(RUN) preprocess_s4.py --root $(MINI)/Single-source
	for row in $(ROWS); do \
	  $(ONE) $(RUN) -m zero_shot.evaluate --config zero_shot/configs/mini/s4_$$row.yaml --out runs/mini/s4_$$row --sheets 6 || exit; \
	done
	for setting in $(COMPARED); do \
	  $(ONE) $(RUN) -m zero_shot.evaluate --config zero_shot/configs/mini/s4_no_prompt.yaml --setting $$setting --prompt.threshold 0.85 \
	    --out runs/mini/s4_$$setting || exit; \
	done
	$(ONE) $(RUN) demo.py $(MINI)/Single-source/s4_data/raw_videos/test/guitar/guitar_0008.mp4
	$(RUN) -m supervised.train --config supervised/configs/mini/s4_tpavi.yaml --out runs/mini/s4_tpavi
	$(RUN) -m supervised.evaluate --run runs/mini/s4_tpavi --sheets 6
	$(RUN) -m supervised.evaluate --run runs/mini/s4_tpavi --sound shuffled
	$(RUN) -m utils.results runs/mini --out runs/mini/table.md
	@echo "Pictures: runs/mini/*/sheets; a page: runs/demo/guitar_0008/index.html"

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
