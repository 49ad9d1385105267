"""Engines: models, a sampler and an optimizer behind one protocol, on one machine or many."""
