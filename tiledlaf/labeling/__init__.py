"""Label any image, tile by tile."""
