"""What people's tools write: annotations, label images, and which image they belong to."""
