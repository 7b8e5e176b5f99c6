"""Mentions to the entries of a catalogue."""
