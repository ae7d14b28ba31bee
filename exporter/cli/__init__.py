"""The command ``mqi-exporter``."""
