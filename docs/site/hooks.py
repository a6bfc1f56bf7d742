"""Pages of the site that do not lie in docs/ as they are, and the links between them.

README.md and its like lie where people look for them; the reference of the API is made from
docs/openapi.json. MkDocs calls the functions here by their names; mkdocs.yml names this file.
"""

import json
import posixpath
import re
import sys
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

from api_reference import reference_pages

# What is read in the checkout too, and where it is in the site.
PLACES: Final = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "licence.md",
    "samples/README.md": "samples.md",
}
_ORIGINS: Final = {place: origin for origin, place in PLACES.items()}
_API: Final = "reference/api"
_LINK: Final = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation by the pages that come and go: decisions, and tags of the API."""
    docs = Path(config.docs_dir)
    decisions = [f"decisions/{path.name}" for path in sorted((docs / "decisions").glob("*.md"))]
    api = [f"{_API}/{name}" for name in reference_pages(_document(docs))]
    for section in config.nav or ():
        for entries in section.values():
            if isinstance(entries, list):
                entries[:] = [
                    {"Decisions": decisions}
                    if entry == "decisions/"
                    else {"HTTP API": api}
                    if entry == f"{_API}/"
                    else entry
                    for entry in entries
                ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    root = Path(config.config_file_path).parent
    for origin, place in PLACES.items():
        files.append(_page(config, place, (root / origin).read_text(encoding="utf-8")))
    for name, text in reference_pages(_document(Path(config.docs_dir))).items():
        files.append(_page(config, f"{_API}/{name}", text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:  # noqa: ANN401
    """Turn links between files of the checkout into links between pages of the site."""
    place = page.file.src_uri
    if place.startswith(f"{_API}/"):
        return markdown
    origin = _ORIGINS.get(place, f"docs/{place}")

    def in_site(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), match[1]))
        found = PLACES.get(target) or target.removeprefix("docs/")
        if found == target:
            raise PluginError(f"{origin}: {match[1]} is not a page of the site")
        return f"]({posixpath.relpath(found, posixpath.dirname(place) or '.')}"

    return _LINK.sub(in_site, markdown)


def _page(config: MkDocsConfig, place: str, text: str) -> File:
    return File.generated(config, place, content=text)


def _document(docs: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((docs / "openapi.json").read_text(encoding="utf-8"))
    return document
