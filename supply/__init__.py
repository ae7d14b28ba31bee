"""What the exporter is made of and how it gets to a machine: locks, licences, bill of materials, wheelhouse."""
