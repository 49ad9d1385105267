"""Serving: one model behind a URL, sampled by the same decoder that training uses."""
