"""What a teacher says: computed live, or read from a cache that knows what it was made of."""
