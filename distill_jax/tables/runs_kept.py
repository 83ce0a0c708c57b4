"""What lies in the folder of a finished run, by name."""

RUNS = "runs"
MODEL = "model"
TOKENIZER = "tokenizer.json"
MISTAKES = "mistakes.json"
"""Scores by class, confusions and the surest errors on the test split."""
