"""Moments that may not be known, in epoch seconds."""

from __future__ import annotations


def moved(at: float | None, seconds: float) -> float | None:
    """The moment ``seconds`` later; one that is not known stays so."""
    return None if at is None else at + seconds
