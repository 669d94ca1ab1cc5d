"""The files of the page: read once, when the dashboard begins to listen, and given as they are."""

from dataclasses import dataclass
from pathlib import Path

ASSETS = Path(__file__).with_name("assets")
PAGE = "index.html"

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file, as it is sent."""

    content: bytes
    content_type: str


def page_files() -> dict[str, PageFile]:
    """All of them by name: those that are there, so no name in an address leads anywhere else."""
    return {
        path.name: PageFile(path.read_bytes(), CONTENT_TYPES[path.suffix])
        for path in sorted(ASSETS.iterdir())
        if path.suffix in CONTENT_TYPES
    }
