"""From the state of every beam to HTTP."""
