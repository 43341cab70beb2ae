"""Plain PyTorch: schedule, loop, evaluation and state on disk."""
