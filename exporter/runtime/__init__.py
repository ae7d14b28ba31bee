"""The running exporter: pipeline, discovery and mirror loops, reload, event log."""
