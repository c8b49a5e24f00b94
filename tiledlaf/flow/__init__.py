"""The numerics on arrays, without files or tiles."""
