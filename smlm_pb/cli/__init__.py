"""Placeholder; written with its room."""
