"""Which logs to poll and when; from a source through tailer and parser to the beams."""
