"""Benchmarks, run by hand: ``make bench`` for all, ``python -m bench NAME`` for one. They assert no times."""
