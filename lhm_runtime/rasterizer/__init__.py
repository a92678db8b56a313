"""Gaussians to pixels: one numerical contract, several backends."""
