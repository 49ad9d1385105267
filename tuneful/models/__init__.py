"""Transformers and the parts they play: trunks, adapters, heads, roles."""
