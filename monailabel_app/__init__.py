"""The MONAI Label app: a server that anonymizes, lets people review, publishes and fine-tunes."""
