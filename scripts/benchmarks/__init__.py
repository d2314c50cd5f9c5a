"""What scripts/benchmark.py measures: each function runs in its own process and returns results by name."""
