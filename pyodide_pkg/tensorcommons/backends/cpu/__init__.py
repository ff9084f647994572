"""The NumPy device."""
