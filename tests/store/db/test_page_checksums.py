"""A ledger that no process has open has page checksums: each changed bit is found, and nothing else is damage (F3, P2)."""

from __future__ import annotations

import fcntl
import gc
import os
import random
import shutil
import sqlite3
import subprocess
import textwrap
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from holdfast.control.maintenance.rebuild_ledger import rebuild
from holdfast.control.maintenance.verify import verify
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.store import Store
from holdfast.store.db import page_checksums, sqlite_handles
from holdfast.store.db.ledger import Ledger, sqlite_url
from tests.support import forking

pytestmark = pytest.mark.sqlite

SEED = 20261122
CHANGE = text(
    "INSERT INTO leases VALUES (:lease, 'h', 1, 1, 1) ON CONFLICT (lease) DO UPDATE SET epoch = epoch + 1"
)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A closed ledger in a store of its own."""
    return closed_ledger(tmp_path / "store")


def closed_ledger(root: Path) -> Path:
    store = Store.open(root)
    change(store.ledger, "first")
    store.ledger.close()
    path = root / "ledger.db"
    assert page_checksums.path_of(path).exists()
    return path


def change(ledger: Ledger, name: str = "x") -> None:
    with ledger.write() as connection:
        connection.execute(CHANGE, {"lease": name})


def turn(path: Path, byte: int, mask: int) -> None:
    with path.open("r+b") as file:
        file.seek(byte)
        (value,) = file.read(1)
        file.seek(byte)
        file.write(bytes([value ^ mask]))


def test_every_bit_of_a_page_and_any_bit_of_the_file_is_found(ledger: Path, tmp_path: Path) -> None:
    """P3: all 32,768 bits of the first page, and 1,000 of the whole file."""
    found, chance = page_checksums.read(ledger), random.Random(SEED)
    assert found is not None
    page = tmp_path / "page"
    page.write_bytes(ledger.read_bytes()[: page_checksums.PAGE_BYTES])
    assert missed(page, found, range(8 * page_checksums.PAGE_BYTES)) == []
    some = [chance.randrange(8 * found.bytes) for _ in range(1_000)]
    assert missed(ledger, found, some) == []
    Store.open(ledger.parent).ledger.close()


def missed(path: Path, found: page_checksums.PageChecksums, bits: Iterable[int]) -> list[int]:
    """The bits whose turning is not found; the file is afterwards as it was."""
    descriptor, unseen = os.open(path, os.O_RDWR), []
    try:
        for bit in bits:
            (value,) = os.pread(descriptor, 1, bit // 8)
            os.pwrite(descriptor, bytes([value ^ 1 << bit % 8]), bit // 8)
            if page_checksums._altered_pages(found, descriptor) != [bit // 8 // page_checksums.PAGE_BYTES]:
                unseen.append(bit)
            os.pwrite(descriptor, bytes([value]), bit // 8)
    finally:
        os.close(descriptor)
    return unseen


def test_a_flipped_bit_is_refused_and_never_written_over(ledger: Path) -> None:
    intact, chance = ledger.read_bytes(), random.Random(SEED)
    for _ in range(6):
        byte, mask = chance.randrange(len(intact)), 1 << chance.randrange(8)
        turn(ledger, byte, mask)
        with pytest.raises(IntegrityError, match=r"HF309.*altered") as refused:
            Store.open(ledger.parent)
        assert refused.value.state == "nothing was changed"
        assert refused.value.next_command == "holdfast restore BACKUP, or holdfast rebuild-ledger"
        turn(ledger, byte, mask)
        Store.open(ledger.parent).ledger.close()


def test_any_bit_of_the_checksums_themselves_is_found(ledger: Path) -> None:
    path, chance = page_checksums.path_of(ledger), random.Random(SEED)
    whole = path.read_bytes()
    for bit in [chance.randrange(8 * len(whole)) for _ in range(500)]:
        turn(path, bit // 8, 1 << bit % 8)
        with pytest.raises(IntegrityError, match="checksums are damaged"):
            page_checksums.read(ledger)
        turn(path, bit // 8, 1 << bit % 8)
    turn(path, 5, 1)
    with pytest.raises(IntegrityError, match="HF309") as refused:
        Store.open(ledger.parent)
    assert refused.value.next_command == f"remove {path}, then holdfast verify"
    path.unlink()
    Store.open(ledger.parent).ledger.close()
    assert path.read_bytes() == whole


def test_a_damaged_ledger_is_rebuilt_from_the_files(ledger: Path) -> None:
    turn(ledger, 20, 1)
    with pytest.raises(IntegrityError, match="HF309"):
        Store.open(ledger.parent)
    assert rebuild(ledger.parent, now_us=1).old_ledger == "aside/ledger.1.db"
    store = Store.open(ledger.parent)
    assert verify(store).checksums_verified
    store.ledger.close()


def test_damage_that_comes_while_it_is_read_never_gets_new_checksums(ledger: Path) -> None:
    store, before = Store.open(ledger.parent), page_checksums.path_of(ledger).read_bytes()
    assert verify(store).checksums_verified
    descriptor = os.open(ledger, os.O_RDWR)  # not closed yet: that would take SQLite's locks
    os.pwrite(descriptor, b"\xff", 3 * page_checksums.PAGE_BYTES - 1)
    outcome = verify(store)
    assert outcome.broken_ledger
    assert not outcome.checksums_verified
    with pytest.raises(IntegrityError, match="HF309"):
        change(store.ledger)
    store.ledger.close()
    os.close(descriptor)
    assert page_checksums.path_of(ledger).read_bytes() == before


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_foreign_log_next_to_a_closed_file_is_not_replayed(ledger: Path, suffix: str) -> None:
    ledger.with_name(ledger.name + suffix).write_bytes(b"\x37\x7f\x06\x82" + bytes(5_000))
    with pytest.raises(IntegrityError, match=f"{suffix} of 5004 bytes") as refused:
        Store.open(ledger.parent)
    assert refused.value.next_command == f"move {ledger.name}{suffix} away, then the same command again"
    ledger.with_name(ledger.name + suffix).unlink()
    Store.open(ledger.parent).ledger.close()


def test_the_last_of_several_ledgers_and_threads_writes_the_checksums(ledger: Path) -> None:
    first, second = (Store.open(ledger.parent).ledger for _ in range(2))
    change(first)
    assert not page_checksums.path_of(ledger).exists()
    first.close()
    assert not page_checksums.path_of(ledger).exists()
    threads = [threading.Thread(target=change, args=(second, f"thread-{number}")) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with second.write() as connection:
        second.close()  # while a transaction is under way: then the last to end writes them
        assert not page_checksums.path_of(ledger).exists()
        connection.execute(CHANGE, {"lease": "late"})
    del second, threads, thread, connection
    gc.collect()  # a connection that comes back late is kept for as long as its ledger
    assert page_checksums.path_of(ledger).exists()
    store = Store.open(ledger.parent)
    assert verify(store).checksums_verified
    with store.ledger.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM leases")).scalar_one() == 7
    store.ledger.close()


def test_readers_leave_the_file_and_its_checksums_alone(ledger: Path) -> None:
    stats = [path.stat().st_mtime_ns for path in (ledger, page_checksums.path_of(ledger))]
    for _ in range(3):
        store = Store.open(ledger.parent)
        assert verify(store).checksums_verified
        store.ledger.close()
    assert [path.stat().st_mtime_ns for path in (ledger, page_checksums.path_of(ledger))] == stats


def test_a_copy_of_the_directory_and_a_ledger_without_checksums_open(ledger: Path, tmp_path: Path) -> None:
    shutil.copytree(ledger.parent, tmp_path / "copy")
    page_checksums.path_of(tmp_path / "copy" / "ledger.db").unlink()
    for root, has_checksums in ((tmp_path / "copy", False), (tmp_path / "copy", True), (ledger.parent, True)):
        store = Store.open(root)
        outcome = verify(store)
        assert (outcome.clean, outcome.checksums_verified) == (True, has_checksums)
        store.ledger.close()


def test_the_file_of_another_program_gets_no_checksums(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE addresses (name)")
    with pytest.raises(IntegrityError, match="not a ledger"):
        Ledger.open(sqlite_url(path))
    assert not page_checksums.path_of(path).exists()


def test_a_file_that_was_put_in_the_ledger_s_place_gets_no_checksums_of_the_old_one(ledger: Path) -> None:
    store = Store.open(ledger.parent)
    change(store.ledger)
    other = closed_ledger(ledger.parent.with_name("other"))
    ledger.rename(ledger.with_name("old.db"))
    shutil.copy(other, ledger)
    store.ledger.close()
    assert not page_checksums.path_of(ledger).exists()


def test_a_lock_that_never_ends_is_reported_in_words(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_handles, "LOCK_TIMEOUT_SECONDS", 0.05)
    with sqlite_handles.lock_of(ledger).open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(HoldfastError, match=r"HF302.*cannot be locked"):
            Store.open(ledger.parent)
    Store.open(ledger.parent).ledger.close()


PROGRAM = textwrap.dedent("""
    import os, random, signal, sys, time
    from pathlib import Path
    from sqlalchemy import text
    from holdfast.store import Store
    from holdfast.store.db import page_checksums
    from holdfast.store.durability import fsync

    root, what = Path(sys.argv[1]), sys.argv[2]
    change = text("INSERT INTO leases VALUES (:lease, 'h', 1, 1, 1) ON CONFLICT (lease) DO UPDATE SET epoch = epoch + 1")

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def one(name, writes=True):
        store = Store.open(root)
        if writes:
            with store.ledger.write() as connection:
                connection.execute(change, {"lease": name})
        return store

    if what == "opened":
        one("", writes=False); die()
    elif what == "removed":
        fsync.sync = die; one("k")
    elif what == "written":
        one("k"); die()
    elif what == "writing":
        store = one("k"); page_checksums.write = die; store.ledger.close()
    elif what == "unfinished":
        store = one("k"); Path.replace = die; store.ledger.close()
    elif what == "checksummed":
        store, write = one("k"), page_checksums.write
        page_checksums.write = lambda *given: (write(*given), die())
        store.ledger.close()
    elif what == "forked":
        store = one("k")
        child = os.fork()
        if child == 0:
            mine = one("child")
            open(root / "ready", "w").close()
            while (root / "ready").exists():
                time.sleep(0.01)
            mine.ledger.close()
            os._exit(0)
        while not (root / "ready").exists():
            time.sleep(0.01)
        store.ledger.close()
        assert not page_checksums.path_of(root / "ledger.db").exists()
        os.unlink(root / "ready")
        assert os.waitpid(child, 0)[1] == 0
        assert page_checksums.path_of(root / "ledger.db").exists()
    else:
        chance, rounds = random.Random(what), 0
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            store = one(what, writes=chance.random() < 0.5)
            time.sleep(chance.random() * 0.004)
            store.ledger.close()
            rounds += 1
        print(rounds)
""")


def program(root: Path, what: str) -> forking.Process:
    return forking.start(PROGRAM, root, what, stderr=subprocess.PIPE)


@pytest.mark.process
@pytest.mark.parametrize(
    ("timestamp", "has_checksums"),
    [
        ("opened", True),
        ("removed", False),
        ("written", False),
        ("writing", False),
        ("unfinished", False),
        ("checksummed", True),
    ],
)
def test_a_kill_at_every_step_leaves_no_checksums_or_right_ones(
    ledger: Path, timestamp: str, has_checksums: bool
) -> None:
    child = program(ledger.parent, timestamp)
    _, errors = child.communicate(timeout=600)
    assert child.returncode == -9, errors
    assert page_checksums.path_of(ledger).exists() == has_checksums
    store = Store.open(ledger.parent)
    outcome = verify(store)
    assert (outcome.findings, outcome.checksums_verified) == ((), has_checksums)
    store.ledger.close()
    assert page_checksums.path_of(ledger).exists()
    assert not list(ledger.parent.glob(".*"))
    Store.open(ledger.parent).ledger.close()


@pytest.mark.process
def test_processes_that_open_write_close_and_die_at_once_never_see_damage(ledger: Path) -> None:
    """Two processes that go on, and a third that is killed and started again for as long."""
    chance = random.Random(SEED)
    steady = [program(ledger.parent, f"s{number}") for number in range(2)]
    killed = 0
    while any(each.poll() is None for each in steady):
        doomed = program(ledger.parent, f"k{killed}")
        time.sleep(0.4 + chance.random() * 0.5)
        doomed.kill()
        _, errors = doomed.communicate()
        assert not errors
        killed += 1
    for each in steady:
        output, errors = each.communicate()
        assert each.returncode == 0, errors
        assert int(output) > 1
    assert killed > 0
    Store.open(ledger.parent).ledger.close()
    store = Store.open(ledger.parent)
    assert verify(store).checksums_verified
    store.ledger.close()


@pytest.mark.process
def test_a_forked_child_keeps_the_checksums_away_with_its_own_lock(ledger: Path) -> None:
    child = program(ledger.parent, "forked")
    _, errors = child.communicate(timeout=600)
    assert child.returncode == 0, errors
    store = Store.open(ledger.parent)
    assert verify(store).checksums_verified
    store.ledger.close()
