"""What several pipelines share: experiments and their pages, ways to a gradient, other methods."""
