"""What people's tools write: annotations as shapes, which become label images and masks."""
