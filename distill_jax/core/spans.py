"""What is asked of a token where an answer is a span of tokens: parts of a whole number."""

STARTS, ENDS = 1, 2
"""The answer starts, or ends, at this token; 0 for neither."""
