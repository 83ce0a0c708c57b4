"""Search: cross-encoders teach two-tower students; cells, runs and tables of their own."""
