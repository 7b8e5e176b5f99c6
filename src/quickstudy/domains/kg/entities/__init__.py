"""Entities of a field from a few labelled sentences, and what past corpora taught about entities."""
