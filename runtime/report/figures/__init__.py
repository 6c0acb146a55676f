"""Geometry of the figures: numbers in, positions in percent of the plot out."""
