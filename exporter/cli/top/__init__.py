"""The command ``top``: all beams in the terminal, read from a running exporter or from the database."""
