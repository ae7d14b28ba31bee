"""Declarations of all metrics, their collectors and the text format."""
