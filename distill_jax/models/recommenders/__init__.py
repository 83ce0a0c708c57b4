"""Recommenders: closed forms on the host, and Flax modules over histories of items."""
