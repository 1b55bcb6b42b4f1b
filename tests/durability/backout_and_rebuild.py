"""Backs a batch out, trains, and makes a lost ledger again, and writes a line to stdout after each acknowledgement.

python changer.py ROOT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from holdfast.control.ingest.ingest import ingest
from holdfast.control.maintenance.compact import compact
from holdfast.control.maintenance.rebuild_ledger import rebuild
from holdfast.control.training.train import train
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from tests.control.training import test_snapshots as shop
from tests.support import backout_world
from tests.support.queries import write


def main(root: str) -> None:
    home = Path(root)
    incoming = home.parent / f"incoming-{home.name}"
    incoming.mkdir()
    store = Store.open(home / "store")

    def acknowledge(what: str) -> None:
        os.write(1, f"ACK {what}\n".encode())

    for hour in range(3):
        for feed in (backout_world.FLIGHTS, backout_world.WEATHER):
            backout_world.load(store, incoming, feed, hour)
    compact(store, ["weather"], now_us=5)
    backout_world.take_out(store, backout_world.FLIGHTS, 1)
    acknowledge("backout")
    backout_world.load(store, incoming, backout_world.FLIGHTS, 1, variant=1)
    acknowledge("reload")
    for day in range(4):
        ingest(store, shop.VISITS, f"d{day}", shop.delivery(incoming, day), now_us=shop.NOW_US)
    model = shop.model(shop.Selection())
    snapshot = write(
        store, snapshots.create, store.root, ["visits"], contract_hash=model.contract.hash, now_us=shop.NOW_US
    )
    train(store, model, snapshot.snapshot, now_us=shop.NOW_US)
    acknowledge("train")
    store.ledger.close()
    for path in store.root.glob("ledger.db*"):
        path.unlink()
    done = rebuild(store.root, now_us=shop.NOW_US)
    acknowledge(f"recover {done.batches} {len(done.versions)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
