"""The addresses in ARCHITECTURE.md and the links of the pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[3]
PAGES: Final = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("docs/how-to/*.md"),
    *ROOT.glob("src/holdfast/*/DESIGN.md"),
]


def addresses(text: str) -> list[str]:
    """Return the paths that stand in backticks and end in `.py` or `/`."""
    return [found for found in re.findall(r"`([\w/.*]+)`", text) if found.endswith((".py", "/"))]


def test_each_address_of_the_architecture_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    source = ROOT / "src" / "holdfast"
    found = addresses(text)
    assert len(found) > 80
    assert [path for path in found if not (source / path).exists() and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_of_a_page_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("package", ["contract", "rollout", "serve", "store"])
def test_each_address_of_a_design_page_exists(package: str) -> None:
    home = ROOT / "src" / "holdfast" / package
    found = addresses((home / "DESIGN.md").read_text())
    assert [path for path in found if not (home / path).exists() and not (home.parent / path).exists()] == []
