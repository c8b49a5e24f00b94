"""Learn from labeled images, tile by tile."""
