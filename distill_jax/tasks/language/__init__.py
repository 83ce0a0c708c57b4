"""Language modelling: hidden words, or the next one."""
