"""Programs that measure and write what the documentation shows; none is a test, and pytest collects nothing here.

``benchmarks`` times parts and whole iterations, ``learning`` runs experiments of many seeds, ``scenarios`` compares and
describes VMAS's scenarios. Each writes to ``docs/results``, and into a page between two marks (``marked.py``). Nox
sessions run them.
"""
