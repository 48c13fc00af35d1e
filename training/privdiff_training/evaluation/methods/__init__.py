"""Methods under test and the baselines beside them; one file a kind, `registry.py` lists them."""
