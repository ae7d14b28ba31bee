"""The communicator's ``beams`` table: discovery reads beams from it, the mirror writes progress into it."""
