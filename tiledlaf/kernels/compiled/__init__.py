"""What Numba compiles for the CPU: explicit vectors, no file knows of tiles."""
