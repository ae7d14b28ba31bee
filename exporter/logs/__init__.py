"""Turns the bytes of a ``tps_env`` log into events. It knows nothing of beams, databases or HTTP."""
