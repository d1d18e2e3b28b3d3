"""A page that compares many runs: figures, a table per task with every seed, and how the runs were made."""
