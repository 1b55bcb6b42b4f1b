"""Loads deliveries into a file system of a few hundred kilobytes until it is full, makes room, and loads on. Run in a name
space of its own, in which the file system is mounted:

    unshare -rm sh -c 'mount -t tmpfs -o size=600k tmpfs DIR && exec python full_disk.py DIR'
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.verify import verify
from holdfast.errors import HoldfastError
from holdfast.store import Store
from tests.soak.delivery_history import check, deliver
from tests.soak.fork_server import FEED

DELIVERIES = 40


def main(root: str) -> None:
    home = Path(root)
    store = Store.open(home / "store")
    with tempfile.TemporaryDirectory() as directory:
        sent = [deliver(Path(directory), number) for number in range(DELIVERIES)]
        ballast = home / "ballast"
        free = os.statvfs(home)
        ballast.write_bytes(b"x" * max(0, free.f_bavail * free.f_frsize - 120_000))
        responses, codes = list[str](), set[str]()
        for each in sent:
            try:
                state = ingest(store, FEED, each.batch, each.path, now_us=1).state
            except HoldfastError as error:
                codes.add(error.code)
            else:
                responses.append(f"ACK {each.batch} {each.content} {state}")
        full = check(store, sent, responses)
        ballast.unlink()
        for each in sent:
            state = ingest(store, FEED, each.batch, each.path, now_us=2).state
            responses.append(f"ACK {each.batch} {each.content} {state}")
        after = check(store, sent, responses)
        findings = verify(store).findings
    loaded = sum(line.endswith(" loaded") for line in responses)
    sys.stdout.write(
        f"codes {sorted(codes)} loaded {loaded} broken {bool(full) or bool(after) or bool(findings)}\n"
    )
    if full or after or findings:
        sys.stdout.write(f"{full}\n{after}\n{findings}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
