"""Training and evaluation of PrivDiff-Net bundles."""
