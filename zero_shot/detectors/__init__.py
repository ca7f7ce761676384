"""Open-vocabulary detectors, which find boxes for a text."""
