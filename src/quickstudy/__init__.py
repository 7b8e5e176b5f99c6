"""quickstudy: learn from many small tasks, so that a new task needs only a few examples."""

__version__ = "0.1.0"
