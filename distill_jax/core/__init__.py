"""What every room speaks: batches, model outputs, errors for people, digests, files."""
