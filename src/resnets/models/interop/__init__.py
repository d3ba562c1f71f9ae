"""Weights of other programs: one file a foreign format, each with its own forward pass as the proof of a conversion."""
