"""An exported student behind HTTP: batching, limits, metrics, a page to try it."""
