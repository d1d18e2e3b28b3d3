"""Networks of all agents: layers, perceptrons, recurrent networks, and what they read from a TensorDict."""
