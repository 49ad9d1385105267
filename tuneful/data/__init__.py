"""Prompts, completions, demonstrations and comparisons: read, split, rendered for a model and planned into batches."""
