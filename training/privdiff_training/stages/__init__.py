"""The stages of training, in the order in which they build on each other."""
