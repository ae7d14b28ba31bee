"""What comes from outside, as bytes nobody would think of, and what must hold whatever they are.

One module for each door, each with a :class:`~tests.fuzz.target.Target`. ``test_targets.py`` tries a few hundred inputs
of each in every test run; ``python -m tests.fuzz TARGET`` tries millions, guided by what they reach in the exporter
(``docs/fuzzing.md``). An input that has found something is kept in ``tests/data/fuzz/TARGET`` and tried in every run.
"""
