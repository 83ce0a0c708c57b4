"""Names in ledgers and in the folders of finished runs. Importing this imports nothing else."""

RUNS, MODEL, TOKENIZER = "runs", "model", "tokenizer.json"
MISTAKES = "mistakes.json"
"""Scores by class, confusions and the surest errors on the test split."""
YARDSTICK = "yardstick"
"""The group of yardsticks' rows."""
MAJORITY, TFIDF, PIXELS = "majority", "tfidf+logreg", "pixels+logreg"
"""The rows: the commonest class; logistic regression on TF-IDF of the texts, or on the pixels."""
YARDSTICKS = (MAJORITY, TFIDF, PIXELS)
USED = ("examples", "labelled")
"""Under ``train/``: to how many labelled examples one was fitted, and how many there are."""
CLASSES = "test/classes_predicted"
"""How many classes a run predicts on the test split; 1 is a constant answer."""
TRAINED = "trained_parameters"
"""How many numbers of a student its last stage trained."""
