"""Benchmarks: modules that print a table and write JSON records. Run from the repository."""
