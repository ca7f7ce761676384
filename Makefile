# Targets: demo, test, test-all, lint, bench, mutants, pretrain. Each sets up the environment it needs.
PYTHON ?= python3
RUN := .venv/bin/python
MINI := avsbench_data/mini
# Small networks gain nothing from a second thread, and slow down if other programs run.
SINGLE_THREAD := OMP_NUM_THREADS=1
# Each test process uses one thread, so two of them take half the time on two cores.
PROCESSES := 2
export PYTHONPATH := $(CURDIR)

.PHONY: setup demo clean-demo pretrain pretrain-audioclip pretrain-sam test test-all lint mutants bench

setup: .venv/ready

.venv/ready: environment_config/requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV="$(CURDIR)/.venv" .venv/bin/uv pip install --quiet --requirement environment_config/requirements.txt
	touch $@

# The synthetic study: compose and preprocess clips, run the demo on one video, then all configurations, tables and a page.
demo: .venv/ready
	$(RUN) -m synthetic.compose --out $(MINI)
	$(RUN) -m synthetic.compose --out $(MINI)_hard --level hard --split test --ms3 0
	$(RUN) preprocess_s4.py --root $(MINI)/Single-source
	$(RUN) preprocess_s4.py --root $(MINI)_hard/Single-source
	$(RUN) preprocess_ms3.py --root $(MINI)/Multi-sources
	$(SINGLE_THREAD) $(RUN) demo.py $(MINI)/Single-source/s4_data/raw_videos/test/guitar/guitar_0008.mp4
	$(RUN) reproduce_tables.py --study mini --out runs/mini
	@echo "Synthetic study: runs/mini/index.html. Demo on one video: runs/demo/guitar_0008/index.html"

clean-demo:
	rm -rf $(MINI) $(MINI)_hard runs/mini runs/demo

# Train the small weights of pretrained/mini from scratch, into runs/pretrain: about half an hour on two cores.
pretrain: .venv/ready
	$(MAKE) --jobs 2 pretrain-audioclip pretrain-sam

pretrain-audioclip pretrain-sam: pretrain-%: .venv/ready
	$(SINGLE_THREAD) $(RUN) -m synthetic.train $* --out runs/pretrain

test: .venv/ready
	$(RUN) -m pytest -n $(PROCESSES)

test-all: .venv/ready
	$(RUN) -m pytest -n $(PROCESSES) -m "slow or not slow"

lint: .venv/ready
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

# Mutation tests of the numeric core: whether the tests detect small changes of it. About half an hour.
mutants: .venv/ready
	$(SINGLE_THREAD) $(RUN) -m tests.mutation

bench: .venv/ready
	$(RUN) -m benchmarks --out benchmarks/results.md
