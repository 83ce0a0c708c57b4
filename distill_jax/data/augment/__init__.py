"""Altered copies of texts: one file a kind."""
