"""Measured privacy and utility of bundles."""
