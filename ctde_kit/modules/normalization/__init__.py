"""Running statistics of observations and rewards, by which networks and losses read them."""
