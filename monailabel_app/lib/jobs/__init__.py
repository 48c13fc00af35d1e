"""The queue: one job is one image on its way from upload to publication."""
