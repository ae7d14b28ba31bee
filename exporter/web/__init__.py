"""The web server: page, API, events and metrics over HTTP."""
