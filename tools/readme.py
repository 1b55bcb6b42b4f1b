"""Build step: README for a package index, where links have no folder to start from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE = re.compile(r"(?<=\]\()(?!#|[a-z]+:)")


def absolute(text: str, home: str) -> str:
    """Return Markdown with the relative links and pictures of `text` below the address `home`."""
    return _RELATIVE.sub(home, text)


class ReadmeHook(MetadataHookInterface):
    """Give the package the README with links below its `Homepage`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add `readme` to `metadata`."""
        text = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute(text, metadata["urls"]["Homepage"]),
        }
