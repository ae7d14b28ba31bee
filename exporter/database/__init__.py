"""The communicator's ``beams`` table: which beams to watch, and where progress is mirrored."""
