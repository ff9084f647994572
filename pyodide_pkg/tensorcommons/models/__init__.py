"""Models: one short file for each architecture, loading into shared weights, and text generation."""
