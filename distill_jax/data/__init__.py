"""Assets, data sets, tokenised arrays and batch plans. Host side only: numpy, never jax arrays."""
