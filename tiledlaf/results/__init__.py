"""What comes out of labels: tables, objects, pictures, files of other programs."""
