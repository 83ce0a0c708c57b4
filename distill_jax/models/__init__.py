"""Flax Linen models: the BERT family, its import from Hugging Face folders, student presets."""
