"""What a detector gets wrong, and what it is trained on, as people can look at it."""
