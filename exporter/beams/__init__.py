"""From events to the state of every beam."""
