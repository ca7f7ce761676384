"""Textbook implementations, which tests and benchmarks compare the optimized ones with."""
