"""One SSH host as a source of logs."""
