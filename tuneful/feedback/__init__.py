"""What people say about completions: judgments, agreement, consensus, and the comparisons exported to training."""
