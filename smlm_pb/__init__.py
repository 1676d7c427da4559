"""smlm-pb."""
