"""The graph in one SQLite file: what was said, what follows from it, what reviewers decided; questions and export."""
