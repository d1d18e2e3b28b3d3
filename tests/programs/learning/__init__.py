"""Programs that run experiments of many seeds and keep their results."""
