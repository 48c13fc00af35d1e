"""The bundles that the server can use, and which of them jobs take by default."""
