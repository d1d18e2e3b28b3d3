"""Critics of states and of joint actions, in every layout, and value normalization."""
