"""Settings of other tools as recipes: what has a counterpart, converted where units differ, and what has none."""
