"""A small simulated movie with its truth."""
