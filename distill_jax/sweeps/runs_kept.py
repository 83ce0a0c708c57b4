"""What lies in the folder of a finished run, by name."""

RUNS = "runs"
MODEL = "model"
TOKENIZER = "tokenizer.json"
CALIBRATION = "calibration.json"
"""Beside a model: the temperature by which its logits are divided for calibrated probabilities."""
MISTAKES = "mistakes.json"
"""Scores by class, confusions and the surest errors on the test split."""
