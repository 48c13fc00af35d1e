"""The attack ladder; one file a rung or a family of rungs."""
