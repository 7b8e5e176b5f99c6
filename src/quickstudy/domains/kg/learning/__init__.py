"""What reviewers teach and what it was worth: scores, curves, the queue, explanations, pictures."""
