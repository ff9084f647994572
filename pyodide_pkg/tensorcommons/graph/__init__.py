"""Computations as data: nodes with identity, merged graphs, fusion, memory plans, compiled programs."""
