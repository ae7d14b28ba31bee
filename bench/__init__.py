"""Benchmarks, run by hand: ``make bench`` runs all, ``python -m bench NAME`` one. They do not check times."""
