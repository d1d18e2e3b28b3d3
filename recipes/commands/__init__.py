"""Command lines: the only place that knows hydra."""
