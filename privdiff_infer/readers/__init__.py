"""Readers of one file family each; all return a `Radiograph`."""
