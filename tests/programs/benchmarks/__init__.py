"""Programs that time parts, steps and whole iterations."""
