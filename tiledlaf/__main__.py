"""Let ``python -m tiledlaf`` be the command line."""

from .cli import main

main()
