"""Files of weights, in and out: formats, names, coverage."""
