"""Text engines: prompts in, rollouts out."""
