"""Sequential recommenders: students of one teacher, updates, the anchor."""
