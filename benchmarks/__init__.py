"""Measurements, each with its ceiling and its quality beside it; `run.py` is the verb."""
