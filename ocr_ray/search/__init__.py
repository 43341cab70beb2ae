"""The parts of a sweep: what proposes trials, where they fit, what a trial is, and who keeps the books."""
