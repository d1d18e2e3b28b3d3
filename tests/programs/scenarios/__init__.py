"""Programs that compare and describe the scenarios that VMAS ships."""
