"""What came out: status, text, scores, pictures and pages."""
