"""Neighbouring programs: the communicator's configuration and Grafana."""
