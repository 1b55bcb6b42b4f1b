"""Which of the processes that state a name has it: every step of the table, and worlds of copies, clones and restarts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.rollout.model.server_name import (
    GAP_SECONDS,
    HEARTBEAT_SECONDS,
    QUIET_SECONDS,
    STEPS,
    Heartbeat,
    Holder,
    NameClaim,
    Process,
    Relation,
    Sign,
    Stated,
    Step,
)

OWN = Process("b2", frozenset({"b1", "b2"}))


def test_every_relation_and_sign_has_a_step() -> None:
    assert set(STEPS) == set(product(Relation, Sign))


def test_a_successor_takes_the_name_of_a_dead_process_after_it_was_quiet_and_no_sooner() -> None:
    claim, dead = NameClaim(OWN), Holder("b1", Heartbeat(7, "x"))
    looks = [claim.decide(dead, second) for second in range(int(QUIET_SECONDS) + 1)]
    assert looks == [Step.WAIT] * int(QUIET_SECONDS) + [Step.TAKE]


def test_an_ancestor_that_beats_makes_its_copy_the_second_for_ever() -> None:
    claim = NameClaim(OWN)
    assert claim.decide(Holder("b1", Heartbeat(7, "x")), 0.0) is Step.WAIT
    assert claim.decide(Holder("b1", Heartbeat(8, "y")), 1.0) is Step.SECOND
    assert claim.decide(None, 100.0) is Step.SECOND


def test_an_ancestor_that_drains_is_waited_for() -> None:
    claim = NameClaim(OWN)
    for number in range(5):
        holder = Holder("b1", Heartbeat(number, "x"), Stated.DRAINING)
        assert claim.decide(holder, float(number)) is Step.WAIT
    assert claim.decide(Holder("b1", Heartbeat(5, "x"), Stated.ENDED), 6.0) is Step.TAKE


def test_a_ledger_that_was_away_proves_no_death() -> None:
    """The ancestor could write no heartbeat in that time."""
    claim, alive = NameClaim(OWN), Holder("b1", Heartbeat(7, "x"))
    assert claim.decide(alive, 0.0) is Step.WAIT
    assert claim.decide(alive, QUIET_SECONDS + GAP_SECONDS + 1) is Step.WAIT


def test_a_lock_that_is_free_proves_the_death_of_an_ancestor_but_makes_no_stranger_one() -> None:
    assert NameClaim(OWN).decide(Holder("b1"), 0.0, has_ended=True) is Step.TAKE
    assert NameClaim(OWN).decide(Holder("b9"), 0.0, has_ended=True) is Step.SECOND


@pytest.mark.parametrize("stated", Stated)
def test_a_stranger_keeps_the_name_whatever_it_states(stated: Stated) -> None:
    assert NameClaim(OWN).decide(Holder("b9", stated=stated), 0.0) is Step.SECOND


@dataclass
class Simulated:
    """One process in a world with one ledger."""

    claim: NameClaim
    directory: list[str]
    is_alive: bool = True
    next_look: float = 0.0
    written: list[Heartbeat] = field(default_factory=list)
    has_taken: bool = False


class Worlds(RuleBasedStateMachine):
    """Processes of one name: started, killed, restarted, copied and cloned, on hosts whose clocks differ.

    The ledger has one row. A process that lives and is not the second believes that the name is its own; within one
    heartbeat of the ledger's answer only one such process is left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.count = 0
        self.row: Holder | None = None
        self.processes: list[Simulated] = [self._started([])]

    def _started(self, directory: list[str]) -> Simulated:
        self.count += 1
        directory.append(f"b{self.count}")
        made = Simulated(NameClaim(Process(directory[-1], frozenset(directory))), directory)
        made.next_look = self.now
        return made

    @property
    def living(self) -> list[Simulated]:
        return [each for each in self.processes if each.is_alive]

    @rule(number=st.integers(0, 9))
    def kill_and_restart(self, number: int) -> None:
        each = self.processes[number % len(self.processes)]
        if each.is_alive:
            each.is_alive = False
            self.processes.append(self._started(each.directory))

    @rule(number=st.integers(0, 9))
    def stop(self, number: int) -> None:
        each = self.processes[number % len(self.processes)]
        if each.is_alive and len(self.living) > 1:
            each.is_alive = False
            if (
                self.row is not None
                and self.row.boot_id == each.claim.process.boot_id
                and not each.claim.is_second
            ):
                self.row = replace(self.row, stated=Stated.ENDED)

    @precondition(lambda self: len(self.processes) < 8)
    @rule(number=st.integers(0, 9))
    def copy_the_directory(self, number: int) -> None:
        self.processes.append(self._started(list(self.processes[number % len(self.processes)].directory)))

    @precondition(lambda self: len(self.processes) < 8)
    @rule(number=st.integers(0, 9))
    def clone_the_machine(self, number: int) -> None:
        of = self.processes[number % len(self.processes)]
        if of.is_alive:
            claim = NameClaim(of.claim.process, of.claim.is_second)
            claim._seen = of.claim._seen
            twin = Simulated(claim, list(of.directory), written=list(of.written), has_taken=of.has_taken)
            twin.next_look = self.now
            self.processes.append(twin)

    @rule(is_lost=st.booleans(), seconds=st.sampled_from([1.0, 5.0, 30.0]))
    def time_passes(self, is_lost: bool, seconds: float) -> None:
        """With the ledger, or without it: then no process looks."""
        until = self.now + seconds
        while self.now < until:
            self.now += 1.0
            for each in () if is_lost else self.living:
                if self.now >= each.next_look:
                    self._look(each)

    @precondition(lambda self: self.row is not None)
    @rule()
    def restore_an_earlier_ledger(self) -> None:
        assert self.row is not None
        earlier = Heartbeat(max(0, self.row.heartbeat.number - 3), f"earlier of {self.row.boot_id}")
        if earlier.number < self.row.heartbeat.number - 2:
            self.row = replace(self.row, heartbeat=earlier)

    def _look(self, each: Simulated) -> None:
        process = each.claim.process
        each.claim.process = replace(process, written=frozenset(each.written))
        step = each.claim.decide(self.row, self.now)
        each.next_look = self.now + (1.0 if step is Step.WAIT else HEARTBEAT_SECONDS)
        if step in (Step.TAKE, Step.BEAT):
            self.count += 1
            heartbeat = Heartbeat(max((one.number for one in each.written), default=0) + 1, f"t{self.count}")
            self.row = Holder(process.boot_id, heartbeat)
            each.written = [heartbeat]
            each.has_taken = True
        elif step is Step.SECOND:
            each.directory[:] = [f"{process.boot_id} apart"]

    @invariant()
    def one_process_believes_that_it_is_the_holder_after_a_heartbeat(self) -> None:
        """Those that looked since the last write of the row, and are not the second, are the holder alone."""
        if self.row is None:
            return
        for each in self.living:
            if each.has_taken and not each.claim.is_second and self.row.boot_id != each.claim.process.boot_id:
                assert each.next_look >= self.now - HEARTBEAT_SECONDS, "it learns it with its next look"

    def teardown(self) -> None:
        """With a ledger that answers, at most one living process has the name a while later, and no two write to it."""
        for _ in range(int(2 * QUIET_SECONDS + GAP_SECONDS)):
            self.now += 1.0
            for each in self.living:
                if self.now >= each.next_look:
                    self._look(each)
        holders = [each for each in self.living if not each.claim.is_second]
        assert len(holders) <= 1
        for each in holders:
            assert self.row is not None
            assert self.row.boot_id == each.claim.process.boot_id


Worlds.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestWorlds = Worlds.TestCase
