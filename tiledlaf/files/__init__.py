"""Where pixels come from and where they go."""
