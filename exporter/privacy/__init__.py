"""What of ids, paths and texts leaves the process, and how."""
