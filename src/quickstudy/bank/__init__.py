"""The task bank: tasks that were met and kept, so that the next one starts from them (ARCHITECTURE: `TaskBank`)."""
