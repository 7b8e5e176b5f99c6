"""Applications: what can be done (`actions`), and the command line that does it."""
