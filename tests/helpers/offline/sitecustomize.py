"""Python imports this at its start: tests/conftest.py puts this folder on PYTHONPATH for the processes tests start."""

from cut_off import cut_off  # type: ignore[import-not-found]

cut_off()
