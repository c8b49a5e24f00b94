"""What turns an image into distances and weights."""
