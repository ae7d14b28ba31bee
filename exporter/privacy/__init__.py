"""How ids, paths and texts are shown outside the process."""
