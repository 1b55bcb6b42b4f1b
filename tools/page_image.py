"""Write docs/page.png: the page of a user's project after weeks of days and nights, as Chromium draws it.

Run from the root of the repository: `python -m tools.page_image`. It plays the user with the 10,000-row export of
`tests.soak.nights`: files, commands, processes and callers, by a simulated clock, so that quality and rollouts of weeks are
there after a quarter of an hour. It draws the page in the afternoon of the last day, and needs `chromium` and a C compiler.
With a URL it draws the page there instead.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.soak.nights import DECLARED, HOURS, Player
from tests.soak.nights_data import DATA_SETS

IMAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "page.png"
USER: Final = "strikes"
SIZE: Final = "1280,2600"
"""Of the window, in pixels: what comes below it is a long list of feeds."""
AFTERNOON: Final = 4
"""So many of `HOURS` are over when the page is drawn."""


def draw(url: str, path: Path) -> None:
    """Write the page at `url` as an image."""
    browser = shutil.which("chromium")
    if browser is None:
        raise SystemExit("there is no chromium: make browser")
    # Without a sandbox, because root has none.
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--hide-scrollbars",
    )
    subprocess.run([browser, *flags, f"--screenshot={path}", f"--window-size={SIZE}", url], check=True)


def play_and_draw(nights: int, seed: int, directory: Path) -> None:
    """Play `nights` nights and most of the day after them, and draw the page."""
    player = Player(DATA_SETS[USER], DECLARED[USER], seed, directory)
    player.begin()
    try:
        for number in range(1, nights + 1):
            night = player.play(number)
            print(f"{night.day} {night.version} {night.rollout} {night.health}", flush=True)
        player.day(nights + 1, HOURS[:AFTERNOON])
        draw(f"http://127.0.0.1:{player.ports['PAGE_PORT']}/", IMAGE)
    finally:
        player.end()


def main() -> None:
    """Draw the page at the URL of the command line, or that of a project that is played."""
    parser = argparse.ArgumentParser(prog="python -m tools.page_image", description=__doc__)
    parser.add_argument("url", nargs="?", help="a page that is there, instead of playing one")
    parser.add_argument("--nights", type=int, default=33)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.url:
        draw(given.url, IMAGE)
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-page-") as directory:
        play_and_draw(given.nights, given.seed, Path(directory))


if __name__ == "__main__":
    main()
