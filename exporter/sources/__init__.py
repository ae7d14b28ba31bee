"""Where logs are: paths, sizes, bytes and the identity of a file, locally and over SSH."""
