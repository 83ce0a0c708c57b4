"""Tables of recommenders: students of one teacher, loss by loss, with ranks kept for every user."""
