"""The record of a run: its directory, logs, checkpoints and manifest."""
