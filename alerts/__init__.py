"""Prometheus rules for beams, sources and the exporter, and an example configuration of Alertmanager.

:mod:`alerts.parameters` holds every threshold, :mod:`alerts.beam_alerts` and :mod:`alerts.exporter_alerts` the alerts,
and :mod:`alerts.rules` the recording rules. ``python -m alerts`` writes ``mqi-rules.yml``, the file that a site loads.
``tests/`` holds unit tests for ``promtool test rules``.
"""
