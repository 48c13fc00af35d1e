"""A person looks, decides and publishes."""
