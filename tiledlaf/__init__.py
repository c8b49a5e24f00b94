"""Label images too large for one machine by linearized assignment flows."""

import lazy_loader

__version__ = "0.1.0"

# names are those of __init__.pyi, each imported when it is asked for: `import tiledlaf` is quick
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
