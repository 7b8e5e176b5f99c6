"""Knowledge graphs of one's own field, from a handful of labelled examples."""
