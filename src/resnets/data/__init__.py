"""Labelled images: reading datasets, decoding and preprocessing images, ordering and batching them."""
