"""Detectors, which find boxes for names. One file each."""
