"""Tables of ratios, both sides of each timed alternately in one run: `python -m benchmarks`."""
