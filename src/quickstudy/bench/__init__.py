"""Suites, baselines, and the comparison of their figures with what they must show."""
