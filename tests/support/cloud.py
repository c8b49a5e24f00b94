"""A folder that stands for all object stores."""

import contextlib
import urllib.parse

import pytest

from tiledlaf.files import stores


@contextlib.contextmanager
def standing_in(root):
    """Bucket B of any scheme is the folder root/B; what the web serves is asked of its server."""
    obstore = pytest.importorskip("obstore", reason="NOT TESTED: obstore is not installed")
    from_url = obstore.store.from_url

    def opened(url, **options):
        if url.startswith("http"):
            return from_url(url, **options)
        path = root / urllib.parse.unquote(url.split("://")[1])
        return obstore.store.LocalStore(path, mkdir=True, automatic_cleanup=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(obstore.store, "from_url", opened)
        stores._bucket.cache_clear()
        yield
    stores._bucket.cache_clear()
