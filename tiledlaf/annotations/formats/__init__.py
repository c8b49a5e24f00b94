"""One module for each annotation format."""
