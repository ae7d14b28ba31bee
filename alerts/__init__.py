"""Prometheus rules for stalled, failed and misread beams, and an example of Alertmanager's configuration.

:mod:`alerts.parameters` holds every threshold, :mod:`alerts.rules` the rules; ``python -m alerts`` writes
``mqi-rules.yml``, which is what a site loads. ``tests/`` holds unit tests for ``promtool test rules``.
"""
