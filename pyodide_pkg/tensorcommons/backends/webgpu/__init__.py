"""WebGPU: kernels chosen in Python, replayed by one call into JavaScript."""
