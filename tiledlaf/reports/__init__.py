"""Reports on results: status, text, scores, pictures and pages."""
