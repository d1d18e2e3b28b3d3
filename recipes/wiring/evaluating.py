"""Seeds of evaluations."""

# Training seeds its env with the run's seed; evaluation seeds lie far beyond any that people use.
EVALUATION_SEED = 1_000_000
# The best policy is chosen by evaluations, so the absolute metric measures it in other episodes.
ABSOLUTE_SEED = 2_000_000
# Which member of a population is the best is decided in these episodes; what it reached is measured in others.
SCORING_SEED = 3_000_000
