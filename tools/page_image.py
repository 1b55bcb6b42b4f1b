"""Write docs/page.png: the page at the end of the demonstration, as Chromium draws it.

Run from the root of the repository: `python tools/page_image.py`. It plays `holdfast demo`, 25 days of traffic with two
promotions and two rollbacks, for some minutes, and needs `chromium`. With a URL it draws the page there instead.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
IMAGE: Final = ROOT / "docs" / "page.png"
PAGE: Final = re.compile(r"Look at it: (http://\S+)")
SIZE: Final = (1280, 2600)
"""Of the window, in pixels: what comes below it is a long list of warnings."""


@contextmanager
def demonstration(directory: Path) -> Iterator[str]:
    """Play the demonstration in `directory`, and yield the URL of its page while it runs."""
    command = [Path(sys.executable).with_name("holdfast"), "demo", "--directory", directory, "--keep-running"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=directory.parent) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                if found := PAGE.search(line):
                    yield found[1]
                    return
            raise SystemExit("the demonstration ended without a page")
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()


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
    size = ",".join(map(str, SIZE))
    subprocess.run([browser, *flags, f"--screenshot={path}", f"--window-size={size}", url], check=True)


def main() -> None:
    """Draw the page at the URL of the command line, or that of a new demonstration."""
    if len(sys.argv) > 1:
        draw(sys.argv[1], IMAGE)
        return
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-page-") as directory,
        demonstration(Path(directory) / "demo") as url,
    ):
        draw(url, IMAGE)


if __name__ == "__main__":
    main()
