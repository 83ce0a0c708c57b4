"""What yardsticks are called, in ledgers and tables. Importing this imports nothing else."""

YARDSTICK = "yardstick"
"""The group of their rows."""
MAJORITY, TFIDF, PIXELS = "majority", "tfidf+logreg", "pixels+logreg"
"""The rows: the commonest class; logistic regression on TF-IDF of the texts, or on the pixels."""
NAMES = (MAJORITY, TFIDF, PIXELS)
USED = ("examples", "labelled")
"""Under ``train/``: to how many labelled examples one was fitted, and how many there are."""
CLASSES = "test/classes_predicted"
"""How many classes a run predicts on the test split; 1 is a constant answer."""
