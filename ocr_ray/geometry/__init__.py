"""Polygons, affine maps and overlaps, in pixels."""
