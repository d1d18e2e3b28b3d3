"""Seeds of evaluations."""

# Training seeds its env with the run's seed; evaluation seeds lie far beyond any that people use.
EVALUATION_SEED = 1_000_000
