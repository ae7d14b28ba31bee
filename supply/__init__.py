"""The exporter's dependencies and their delivery: locks, licences, bill of materials, wheelhouse."""
