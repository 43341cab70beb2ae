"""One teacher for a whole sweep: its answers are made once, by actors of their own, and read by every trial."""
