"""Let ``python -m tiledlaf`` be the command line."""

from .cli.main import main

main()
