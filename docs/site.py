"""What the site shows beside docs/: pages and files of the repository that its pages link to.

The README is the first page. Links are those of a code host, relative to each file in the
repository; here they become links between pages.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
# by their place on the site; those in docs/ are there already
PAGES = {
    "index.md": "README.md",
    "deploy/README.md": "deploy/README.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
}
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")


def on_files(files, config):
    """Add the pages, and the files that any page links to, as they are."""
    for place, source in PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text()))
    known = {PAGES.get(p.src_uri, f"docs/{p.src_uri}") for p in files.documentation_pages()}
    for source in sorted(known):
        for found in LINK.finditer((ROOT / source).read_text()):
            target = _target(source, found[2])
            place = _place(target)
            if (ROOT / target).is_file() and files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Let links lead to the places that files have on the site."""
    here = page.file.src_uri
    source = PAGES.get(here, f"docs/{here}")

    def moved(found):
        target = _target(source, found[2])
        if (ROOT / target).is_dir():  # a code host lists a folder; a site has no page of it
            return f"{found[1]}{os.path.relpath('index.md', os.path.dirname(here) or '.')})"
        place = os.path.relpath(_place(target), os.path.dirname(here) or ".")
        return f"{found[1]}{place}{found[3]}"

    return LINK.sub(moved, markdown)


def _target(source: str, link: str) -> str:
    """What a link in a file leads to, as a path in the repository."""
    return os.path.normpath(os.path.join(os.path.dirname(source), link))


def _place(target: str) -> str:
    """The path on the site of a path in the repository."""
    places = {source: place for place, source in PAGES.items()}
    return places.get(target, target.removeprefix("docs/"))
