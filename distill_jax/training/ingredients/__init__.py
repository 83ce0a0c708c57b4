"""What a recipe may be made of: one file a kind."""
