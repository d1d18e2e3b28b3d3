"""Many runs from one command: recipes x tasks x seeds, a queue over the cores, and what has become of each run."""
