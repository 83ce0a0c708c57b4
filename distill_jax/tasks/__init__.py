"""What is learnt and how it is judged: classification, recommendation, search."""
