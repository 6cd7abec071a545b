"""A study on disk, read and written: its folder, networks, storage, trials, tables, front and lineage."""
