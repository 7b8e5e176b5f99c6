"""Relation inference: triples of a relation that is known from one to five of them, proposed and never asserted."""
