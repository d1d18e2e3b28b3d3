"""Tasks: environments as configurations that build them."""
