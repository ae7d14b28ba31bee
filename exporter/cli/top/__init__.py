"""``mqi-exporter top``: every beam in the terminal, from a running exporter or straight from the database."""
