# make demo · make test · make lint · make bench · make mutants · make pretrain — each makes what it needs.
PYTHON ?= python3
RUN := .venv/bin/python
MINI := avsbench_data/mini
# Small networks gain nothing by a second thread, and lose much by it where something else runs.
ONE := OMP_NUM_THREADS=1
export PYTHONPATH := $(CURDIR)

.PHONY: setup demo clean-demo pretrain pretrain-audioclip pretrain-sam test test-all lint mutants bench

setup: .venv/ready

.venv/ready: environment_config/requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV="$(CURDIR)/.venv" .venv/bin/uv pip install --quiet --requirement environment_config/requirements.txt
	touch $@

# The study in small: compose clips, preprocess them, show one as anybody's video, then every row, its tables and a page.
demo: .venv/ready
	$(RUN) -m avsbench_data.compose --out $(MINI)
	$(RUN) preprocess_s4.py --root $(MINI)/Single-source
	$(RUN) preprocess_ms3.py --root $(MINI)/Multi-sources
	$(ONE) $(RUN) demo.py $(MINI)/Single-source/s4_data/raw_videos/test/guitar/guitar_0008.mp4
	$(RUN) reproduce_tables.py --study mini --out runs/mini
	@echo "The study: runs/mini/index.html. One clip as anybody's video: runs/demo/guitar_0008/index.html"

clean-demo:
	rm -rf $(MINI) runs/mini runs/demo

# The weights of pretrained/mini from nothing, into runs/pretrain: about half an hour on two cores.
pretrain: .venv/ready
	$(MAKE) --jobs 2 pretrain-audioclip pretrain-sam

pretrain-audioclip pretrain-sam: pretrain-%: .venv/ready
	$(ONE) $(RUN) -m pretrained.train_mini $* --out runs/pretrain

test: .venv/ready
	$(RUN) -m pytest

test-all: .venv/ready
	$(RUN) -m pytest -m "slow or not slow"

lint: .venv/ready
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

# Small faults planted in the numeric core: do the tests notice? About half an hour.
mutants: .venv/ready
	$(ONE) $(RUN) -m tests.mutation

bench: .venv/ready
	$(RUN) -m benchmarks --out benchmarks/results.md
