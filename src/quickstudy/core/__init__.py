"""Tasks, episodes, learners and the engine: knows no domain."""
