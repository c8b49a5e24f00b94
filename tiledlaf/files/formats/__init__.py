"""One file for each format of images."""
