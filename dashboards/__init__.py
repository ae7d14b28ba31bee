"""Grafana dashboards as code, built with grafanalib, and their JSON, which a site loads.

:mod:`dashboards.model` adapts grafanalib to current versions of Grafana, and :mod:`dashboards.queries` contains
selectors and expressions that several panels use. Each dashboard has a module of its own. ``python -m dashboards``
writes the JSON.
"""
