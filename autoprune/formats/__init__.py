"""A network as a file and back: writing it, reading it, running it; one file a format."""
