"""Experience: prompts to completions to scores."""
