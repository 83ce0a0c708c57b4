"""Kinds of what is predicted, a file each: one class, a number, several labels."""
