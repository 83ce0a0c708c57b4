"""Cross-encoders teach two-tower students."""
