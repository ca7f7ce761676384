"""Python imports this at its start: tests/conftest.py puts this folder on PYTHONPATH for the processes tests start."""

from block_network import block_network

block_network()
