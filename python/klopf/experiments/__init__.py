"""Experiments: one flat file each, on top of a settings dataclass that is also its command line."""
