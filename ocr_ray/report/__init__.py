"""The pages about sweeps: one HTML file that needs nothing else, read off a sweep's folder."""
