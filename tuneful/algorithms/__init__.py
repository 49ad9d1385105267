"""Learners, one file each, and the loop and stop rules they share."""
