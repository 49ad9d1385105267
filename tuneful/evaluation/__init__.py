"""Measuring models: intervals, text measures, comparisons before and after, reward accuracy and the report."""
