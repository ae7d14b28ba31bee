"""Grafana dashboards as code, built with grafanalib, and their JSON, which a site loads.

:mod:`dashboards.panels` and :mod:`dashboards.model` make panels and dashboards with grafanalib for current versions of
Grafana. :mod:`dashboards.queries` contains selectors and expressions that several panels use. Each dashboard has a
module of its own. ``python -m dashboards`` writes the JSON.
"""
