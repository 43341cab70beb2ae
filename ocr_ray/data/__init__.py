"""From label lines and photographs to batches with their targets."""
