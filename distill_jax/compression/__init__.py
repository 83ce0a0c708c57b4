"""Smaller still: what is done to a finished student, step by step."""
