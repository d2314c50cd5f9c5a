"""What scripts/benchmark.py measures: each function runs in a process of its own and returns figures by
name."""
