"""Finished models on their way out: one folder a format, that is known to be the same model."""
