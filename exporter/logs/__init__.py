"""From bytes of a ``tps_env`` log to events. Knows nothing of beams, databases or HTTP."""
