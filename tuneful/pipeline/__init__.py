"""Whole runs: recipes and their stages."""
