"""Encoders of text: packaged, from a folder or a hub; sentence vectors, token states, low-rank adapters."""
