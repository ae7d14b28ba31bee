"""Grafana dashboards as code, built with grafanalib, and the JSON built from it, which is what a site loads.

:mod:`dashboards.model` makes today's panels of grafanalib's classes, :mod:`dashboards.queries` holds what expressions
share, and one module holds each dashboard. ``python -m dashboards`` writes the JSON.
"""
