"""Texts, pairs of texts and images into classes."""
