"""After a sweep: its best trials are trained again with fresh seeds, held against two controls, and tested."""
