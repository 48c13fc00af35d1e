"""Client of the PrivDiff routes of a server: `requests` and the standard library only, Python 3.9."""
