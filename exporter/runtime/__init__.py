"""The running exporter: pipeline, table loops, reload, logging."""
