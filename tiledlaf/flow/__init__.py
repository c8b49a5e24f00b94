"""The numerics on arrays: no file and no tile."""
