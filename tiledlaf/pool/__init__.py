"""Where tasks run: threads, processes or a Dask cluster."""
