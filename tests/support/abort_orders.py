"""Every order of aborts, restarts, refusals, plans, rollbacks and rollouts of four versions, by breadth-first search.

The server's side is the real one: the abort file, its follower, the handler of the endpoint and the switch. The ledger's side
is a small model that decides with the rules of the control loop.

Two machines are one state if they behave alike from then on (`normal`). There are finitely many states, so the search
ends when its frontier is empty. That `normal` keeps enough is checked, not assumed: of machines that reach a known state in
another way, a sample is expanded too, and must have the same successors (`Found.twins`).
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import msgspec

from holdfast.errors import HoldfastError, RefusedError
from holdfast.records import TrafficPlan
from holdfast.rollout import State
from holdfast.rollout.decision.fallback import Candidate, fallback, heuristic
from holdfast.rollout.model.abort import Abort, banned, permitted
from holdfast.rollout.model.state_machine import WITHOUT_TRAFFIC
from holdfast.rollout.model.withdrawal import Standing, may_serve, standing_of
from holdfast.serve.follower import plan_switch
from holdfast.serve.follower.aborts import AbortFollower, AbortHandler
from holdfast.serve.follower.local_copy import LocalState
from holdfast.serve.follower.plan_switch import PlanSwitch
from holdfast.serve.inference.active_plan import ActivePlan
from holdfast.store.serving import aborts
from tests.support.serving_world import CONTRACT

MODELS: Final = ("v3", "v2", "v1")
HEURISTIC: Final = "h"
VERSIONS: Final = (*MODELS, HEURISTIC)
SHARE: Final = 50_000
ENDED: Final = (State.PROMOTED, State.ROLLED_BACK, State.CANCELLED)


# --- the ledger's side ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rollout:
    number: int
    version: str
    champion: str
    state: State


@dataclass(frozen=True)
class Ledger:
    """The newest plan, the rollouts that count (newest first), and what was withdrawn by a plan alone."""

    plan: TrafficPlan
    rollouts: tuple[Rollout, ...] = ()
    withdrawn: frozenset[str | int] = frozenset()
    models: tuple[str, ...] = MODELS
    """Versions besides the heuristic, the newest first."""

    def last(self, version: str) -> Rollout | None:
        moved = (each for each in self.rollouts if each.version == version)
        return next((each for each in moved if each.state not in WITHOUT_TRAFFIC), None)

    def standing(self, version: str) -> Standing:
        last = self.last(version)
        if last is None:
            return standing_of(None, is_withdrawn=version in self.withdrawn)
        return standing_of((last.number, last.state), is_withdrawn=last.number in self.withdrawn)

    @property
    def running(self) -> Rollout | None:
        return next((each for each in self.rollouts if each.state not in ENDED), None)

    @property
    def newest(self) -> int:
        return max((each.number for each in self.rollouts), default=0)

    def candidates(self) -> list[Candidate]:
        return [
            Candidate(
                each,
                each == HEURISTIC,
                "qualified",
                self.standing(each),
                is_promoted=(last := self.last(each)) is not None and last.state is State.PROMOTED,
            )
            for each in (*self.models, HEURISTIC)
        ]

    def clean(self, version: str | None) -> str | None:
        return version if version is not None and self.standing(version).may_serve else None

    def warm(self) -> str | None:
        return heuristic(self.candidates(), self.plan.fallback, ())

    def moved(self, rollout: Rollout, state: State) -> Ledger:
        others = tuple(replace(each, state=state) if each == rollout else each for each in self.rollouts)
        return replace(self, rollouts=others)

    def without_history(self) -> Ledger:
        """The ledger without the rollouts that nothing asks for again: a search of any depth would carry them along."""
        last = {each.number for version in self.models if (each := self.last(version)) is not None}
        kept = last | {self.newest} | {each.number for each in self.rollouts if each.state not in ENDED}
        return replace(self, rollouts=tuple(each for each in self.rollouts if each.number in kept))

    def planned(self, champion: str, rollout: Rollout | None, **places: Any) -> Ledger:
        number, pushes = (None, None) if rollout is None else (rollout.number, rollout.version)
        plan = TrafficPlan(
            "m",
            self.plan.plan_id + 1,
            champion,
            rollout_id=number,
            pushes=pushes,
            **{"fallback": self.warm(), **places},
        )
        gone = {name: None for name in ("previous", "fallback") if getattr(plan, name) == champion}
        return replace(self, plan=replace(plan, **gone))


def start(ledger: Ledger, version: str) -> Ledger | None:
    if ledger.running is not None or ledger.plan.champion == version:
        return None
    begun = Rollout(ledger.newest + 1, version, ledger.plan.champion, State.PENDING)
    return replace(ledger, rollouts=(begun, *ledger.rollouts))


def advance(ledger: Ledger) -> Ledger:
    row = ledger.running
    if row is None:
        return ledger
    if row.state is State.PENDING:
        moved = ledger.moved(row, State.CANARY)
        previous = ledger.clean(ledger.plan.previous)
        previous = None if previous == row.version else previous
        return moved.planned(row.champion, row, challenger=row.version, share_ppm=SHARE, previous=previous)
    return ledger.moved(row, State.PROMOTED).planned(row.version, row, previous=ledger.clean(row.champion))


def undo(ledger: Ledger, row: Rollout) -> Ledger | None:
    """Return the ledger after the rollback of `row`; None where it is refused, because no version may take over."""
    if row.state is State.PENDING:
        return ledger.moved(row, State.CANCELLED)
    choice = fallback(ledger.candidates(), row.champion, ledger.plan.fallback, (), (row.version,))
    if choice.version is None or (choice.is_last_resort and ledger.plan.champion != choice.version):
        return None
    moved = ledger.moved(row, State.ROLLED_BACK)
    previous = moved.clean(ledger.plan.previous) if ledger.plan.champion == choice.version else None
    return moved.planned(choice.version, row, previous=previous)


def carry(ledger: Ledger, abort: Abort) -> Ledger:
    """Bring one abort into the ledger, as `control.rollout.abort_sync` does."""
    version = abort.version
    pushed = (
        each.number
        for each in ledger.rollouts
        if each.version == version and each.state is not State.CANCELLED
    )
    if max(pushed, default=0) > abort.rollout_id:
        return ledger
    row = ledger.running
    if row is None and ledger.plan.champion == version:
        last = ledger.last(version)
        row = last if last is not None and last.state is State.PROMOTED else None
    if row is not None and row.version == version:
        ledger = undo(ledger, row) or ledger
    plan, row = ledger.plan, ledger.running
    if version == plan.champion:
        unfit = () if row is None else (row.version,)
        to = fallback(ledger.candidates(), None, plan.fallback, {version}, unfit).version
        if to is None or version == plan.challenger:
            return ledger
        if row is not None:
            ledger = ledger.moved(row, State.CANCELLED if row.state is State.PENDING else State.ROLLED_BACK)
        ledger = withdraw(ledger, version).planned(to, row)
    elif version in (plan.previous, plan.fallback):
        ledger = withdraw(ledger, version)
        places = {name: ledger.clean(getattr(plan, name)) for name in ("previous", "fallback")}
        places["fallback"] = places["fallback"] or ledger.warm()
        ledger = replace(ledger, plan=replace(plan, plan_id=plan.plan_id + 1, **places))
    return withdraw(ledger, version)


def withdraw(ledger: Ledger, version: str) -> Ledger:
    if not ledger.standing(version).may_serve:
        return ledger
    last = ledger.last(version)
    return replace(ledger, withdrawn=ledger.withdrawn | {version if last is None else last.number})


# --- the machine's side -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """A server's memory (None: killed), the abort file, the local copy, and what was acknowledged as withdrawn."""

    ledger: Ledger
    copy: LocalState | None = None
    file: bytes = b""
    plan: TrafficPlan | None = None
    known: tuple[Abort, ...] = ()
    last_resort: tuple[str, ...] = ()
    newest_rollout: int = 0
    active: ActivePlan | None = field(default=None, compare=False)
    serves: tuple[str | None, ...] = ()
    """What may answer: champion, challenger, previous champion, fallback."""
    runs: bool = False
    taken: frozenset[tuple[str, int]] = frozenset()


NO_LEDGER: Final = Ledger(TrafficPlan("m", 0, ""))
MOST_KNOWN: Final = 500_000
"""Results that are kept; then all are forgotten."""


class World:
    """Carries out one operation on a machine by the real classes, in one directory."""

    def __init__(
        self, directory: Path, unfit: frozenset[str] = frozenset(), models: tuple[str, ...] = MODELS
    ) -> None:
        self.models = models
        self._directory = directory
        self._file = directory / "abort.json"
        self._loaded: dict[str, Any] = {
            name: SimpleNamespace(name=name, contract=CONTRACT, words={}, inputs=()) for name in VERSIONS
        }
        self._unfit = unfit
        self._known: dict[Any, tuple[Machine, tuple[str, int] | None] | None] = {}

    def without_ledger(
        self,
        machine: Machine,
        name: str,
        version: str,
        operate: Callable[[Machine, str], tuple[Machine, tuple[str, int] | None] | None],
    ) -> Machine | None:
        """Carry out an operation that asks no ledger, or take its result from a machine that differs in the ledger alone."""
        server = replace(machine, ledger=NO_LEDGER, taken=frozenset())
        copy, active = machine.copy, machine.active
        plans = (
            machine.plan,
            None if copy is None else copy.plan,
            None if active is None else active.plan,
        )
        key = (
            name, version, machine.file, machine.known, machine.last_resort, machine.newest_rollout, machine.runs, plans,
            tuple(each and each.pushes for each in plans),  # no part of a plan's equality
            None if copy is None else (copy.rollout_id, copy.last_resort),
        )  # fmt: skip
        if key not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[key] = operate(server, version)
        found = self._known[key]
        if found is None:
            return None
        after, taken = found
        return replace(
            after, ledger=machine.ledger, taken=machine.taken if taken is None else machine.taken | {taken}
        )

    def open(self, machine: Machine) -> tuple[PlanSwitch, AbortHandler, AbortFollower]:
        if machine.file:
            self._file.write_bytes(machine.file)
        else:
            self._file.unlink(missing_ok=True)
        plane: Any = SimpleNamespace(active=machine.active, model="m")
        switch = PlanSwitch(plane, lambda: 0)
        switch._plane = plane
        switch.facts = replace(switch.facts, tainted=self._unfit)
        switch.plan, switch.newest_rollout = machine.plan, machine.newest_rollout
        switch.loaded = self._loaded if machine.plan else {}
        switch.aborts = {each.version: each for each in machine.known}
        switch.last_resort = dict.fromkeys(machine.last_resort, plan_switch.NO_OTHER)
        return (
            switch,
            AbortHandler(plane, switch, self._directory, lambda: 0),
            AbortFollower(self._directory, switch.apply_aborts),
        )

    def close(self, machine: Machine, switch: PlanSwitch, **changed: Any) -> Machine:
        active = switch._plane.active
        # With those that answer when a version fails on a request.
        plan = None if active is None else active.plan
        serves = () if plan is None else (plan.champion, plan.challenger, plan.previous, plan.fallback)
        return replace(
            machine,
            file=self.bytes(),
            plan=switch.plan,
            known=tuple(switch.aborts.values()),
            last_resort=tuple(sorted(switch.last_resort)),
            newest_rollout=switch.newest_rollout,
            active=active,
            serves=serves,
            **changed,
        )

    def bytes(self) -> bytes:
        return self._file.read_bytes() if self._file.exists() else b""

    def abort(self, machine: Machine, version: str) -> Machine | None:
        """`POST /holdfast/abort`."""
        return self.without_ledger(machine, "abort", version, self._abort) if machine.runs else None

    def _abort(self, machine: Machine, version: str) -> tuple[Machine, tuple[str, int] | None] | None:
        switch, handler, _ = self.open(machine)
        try:
            done = handler.abort(version, "bad", "ann")
        except HoldfastError as error:
            if isinstance(error, RefusedError):
                same = self.close(machine, switch)
                assert same == machine, f"the refusal of {version} changed something"
            return None
        assert done["durable"]
        return self.close(machine, switch), (version, int(str(done["rollout"])))

    def command(self, machine: Machine, version: str) -> Machine | None:
        """`holdfast rollback --version` without the ledger and without waiting for a server."""
        return self.without_ledger(machine, "command", version, self._command)

    def _command(self, machine: Machine, version: str) -> tuple[Machine, tuple[str, int] | None] | None:
        copy = machine.copy
        if copy is None or version not in copy.plan.versions():
            return None
        switch, _, follower = self.open(machine)
        given = Abort(
            version, copy.plan.plan_id, max(copy.rollout_id, copy.plan.rollout_id or 0), "bad", "ann", 0
        )

        def check(standing: tuple[Abort, ...]) -> None:
            known = [each for each in standing if each.version not in copy.last_resort]
            if (
                permitted(
                    copy.plan, banned([*known, given], copy.plan), lambda name, _: name not in self._unfit
                )
                is None
            ):
                raise RefusedError("HF404", "no version is left")

        try:
            stands, _ = aborts.add(self._directory, given, check=check)
        except RefusedError:
            return None
        if machine.runs:
            follower.look()
        taken = None if version in switch.last_resort else (version, stands.rollout_id)
        return self.close(machine, switch), taken

    def kill(self, machine: Machine) -> Machine | None:
        if not machine.runs:
            return None
        return replace(
            machine, plan=None, known=(), last_resort=(), newest_rollout=0, active=None, serves=(), runs=False
        )

    def start(self, machine: Machine) -> Machine | None:
        """Start from the copy; the ledger is away."""
        if machine.runs:
            return None
        switch, _, follower = self.open(machine)
        follower.look()
        if machine.copy is not None:
            switch.restore(machine.copy)
            switch.facts = replace(switch.facts, tainted=self._unfit)
            switch.apply(machine.copy.plan, self._loaded, {})
        return self.close(machine, switch, runs=True)

    def follow(self, machine: Machine) -> Machine | None:
        """Follow the newest plan, keep the copy, and end the aborts that the ledger has recorded."""
        if not machine.runs:
            return None
        switch, _, _ = self.open(machine)
        ledger = machine.ledger
        newest, copy = ledger.plan, machine.copy
        is_followed = switch.plan is not None and switch.plan.plan_id == newest.plan_id
        if not is_followed and not switch.apply(newest, self._loaded, {}):
            is_followed = True
        if is_followed:
            copy = LocalState(
                newest, {}, 0, rollout_id=switch.newest_rollout, last_resort=tuple(sorted(switch.last_resort))
            )
        ended = []
        for each in switch.aborts.values():
            known = ledger.standing(each.version)
            is_pushed_again = may_serve(pushed=known.pushed, withdrawn=each.rollout_id)
            if is_pushed_again or (
                is_followed and each.version not in newest.versions() and not known.may_serve
            ):
                ended.append(each)
        if ended:
            aborts.remove(self._directory, ended)
            switch.end_aborts(ended)
        taken = frozenset(
            (name, number)
            for name, number in machine.taken
            if not may_serve(pushed=ledger.standing(name).pushed, withdrawn=number)
        )
        if is_followed:
            withdrawn = [name for name in (*ledger.models, HEURISTIC) if not ledger.standing(name).may_serve]
            serving = {newest.champion, newest.challenger}
            taken |= {
                (name, ledger.standing(name).withdrawn or 0) for name in withdrawn if name not in serving
            }
        return self.close(machine, switch, copy=copy, taken=taken)

    def control(self, machine: Machine) -> Machine:
        """One round of the control loop."""
        ledger = machine.ledger
        for each in _listed(machine.file):
            ledger = carry(ledger, each)
        return replace(machine, ledger=advance(ledger).without_history())

    def undo(self, machine: Machine) -> Machine | None:
        """`holdfast rollback` by the ledger."""
        ledger = machine.ledger
        row = ledger.running or ledger.last(ledger.plan.champion)
        if row is None or row.state is State.ROLLED_BACK or row.number in ledger.withdrawn:
            return None
        after = undo(ledger, row)
        return None if after is None else replace(machine, ledger=after.without_history())

    def roll_out(self, machine: Machine, version: str) -> Machine | None:
        after = start(machine.ledger, version)
        return None if after is None else replace(machine, ledger=after)


def _listed(file: bytes) -> tuple[Abort, ...]:
    if not file:
        return ()
    return msgspec.convert(msgspec.json.decode(file)["aborts"], tuple[Abort, ...])


# --- the search -------------------------------------------------------------------------------------------------------


def normal(machine: Machine) -> tuple[Any, ...]:
    """Return all of a machine that its future depends on; equal for two machines that behave alike from then on.

    Numbers of plans and rollouts become their ranks, and only among those that are ever compared: the numbers of one version,
    with those that a new abort of it would get. Rollouts that ended are dropped but the last of each version that had traffic.
    """
    ledger, copy = machine.ledger, machine.copy
    given = _listed(machine.file)
    plans = [ledger.plan, machine.plan, None if copy is None else copy.plan]
    plan_numbers = {each.plan_id for each in plans if each is not None}
    running = ledger.running
    # The newest rollout that the server and the copy know, or will know after the newest plan or a rollback of a rollout.
    copied = 0 if copy is None else copy.rollout_id
    known = machine.newest_rollout if machine.runs else copied, copied
    ahead = [
        ledger.plan.rollout_id or 0,
        0 if running is None else running.number,
        *(
            each.number if (each := ledger.last(version)) is not None and each.state is State.PROMOTED else 0
            for version in ledger.models
        ),
    ]
    newest_known = [*known, *(max(number, each) for number in ahead for each in known)]
    taken = {
        version: max(each for name, each in machine.taken if name == version) for version, _ in machine.taken
    }

    def of_version(version: str) -> Any:
        last = ledger.last(version)
        stand = [[each for each in listed if each.version == version] for listed in (given, machine.known)]
        pushed = [each.rollout_id or 0 for each in plans if each is not None and each.pushes == version]
        numbers = [
            *newest_known, *pushed, *(each.rollout_id for listed in stand for each in listed),
            -1 if last is None else last.number,
            running.number if running is not None and running.version == version else -1,
        ]  # fmt: skip
        rank = {number: at for at, number in enumerate(sorted(set(numbers)))}
        return (
            tuple(rank[number] for number in numbers),
            tuple(
                sum(number > each.plan_id for number in plan_numbers) for listed in stand for each in listed
            ),
            stand[0] == stand[1],
            None if last is None else (last.state, last.champion if last.state is State.PROMOTED else None),
            (version if last is None else last.number) in ledger.withdrawn,
            # Whether the next plan that is followed ends it: only a newer rollout does.
            version in taken and (last is not None and last.number > taken[version]),
            version in taken,
        )

    plan_rank = {number: at for at, number in enumerate(sorted(plan_numbers))}

    def of_plan(plan: TrafficPlan | None) -> Any:
        if plan is None:
            return None
        places = (plan.champion, plan.challenger, plan.previous, plan.fallback, plan.pushes)
        return (plan_rank[plan.plan_id], *places)

    return (
        *map(of_plan, plans), *map(of_version, (*ledger.models, HEURISTIC)), tuple(each.version for each in given),
        tuple(each.version for each in machine.known), machine.last_resort, machine.serves, machine.runs,
        None if copy is None else copy.last_resort,
        None if running is None else (running.version, running.champion, running.state),
    )  # fmt: skip


def operations(world: World) -> Iterator[tuple[str, Callable[[Machine], Machine | None]]]:
    for version in (*world.models, HEURISTIC):
        yield f"abort {version}", lambda machine, version=version: world.abort(machine, version)
    for version in (*world.models, HEURISTIC):
        yield f"command {version}", lambda machine, version=version: world.command(machine, version)
    for version in world.models:
        yield f"roll out {version}", lambda machine, version=version: world.roll_out(machine, version)
    yield "kill", world.kill
    yield "start", world.start
    yield "follow", world.follow
    yield "control loop", world.control
    yield "roll back", world.undo


class WithdrawnVersionServesError(AssertionError):
    """A version that was withdrawn answers; the message has the operations that led there."""


@dataclass(frozen=True)
class Found:
    """What a search has seen. `twins` are the machines that were expanded to check that their state is another's too."""

    states: int
    transitions: int
    depth: int
    is_closed: bool
    twins: int


Way = tuple[str, ...]


def search(
    world: World,
    most_depth: int | None = None,
    *,
    twin_every: int = 50,
    report: Callable[[Found], None] = lambda _: None,
) -> Found:
    """Walk every order of operations, until no new state is found or orders of `most_depth` operations are walked.

    Raises `WithdrawnVersionServesError`, and `AssertionError` when a refusal changed something or two machines of one state
    have other successors.

    Parameters
    ----------
    twin_every
        One machine in so many of those that reach a known state is expanded.
    report
        Called after each depth.
    """
    begin = world.follow(Machine(first(world.models), runs=True))
    assert begin is not None
    gc.disable()  # nothing here is a cycle, and there are millions of objects to walk
    try:
        return _search(world, begin, most_depth, twin_every, report)
    finally:
        gc.enable()


def _search(
    world: World, begin: Machine, most_depth: int | None, twin_every: int, report: Callable[[Found], None]
) -> Found:
    successors: dict[bytes, bytes] = {digest(normal(begin)): b""}
    level: list[tuple[Machine, Way]] = [(begin, ())]
    twins: list[tuple[Machine, Way]] = []
    transitions = twins_checked = met_again = depth = 0
    while level and depth != most_depth:
        depth += 1
        following: list[tuple[Machine, Way]] = []
        for machine, way in level:
            following_states = []
            for name, after in expand(world, machine, way):
                transitions += 1
                state = digest(normal(after))
                following_states.append((name, state))
                if state not in successors:
                    successors[state] = b""
                    following.append((after, (*way, name)))
                else:
                    met_again += 1
                    if met_again % twin_every == 0:
                        twins.append((after, (*way, name)))
            successors[digest(normal(machine))] = digest(following_states)
        waiting: list[tuple[Machine, Way]] = []
        for twin, way in twins:
            expected = successors[digest(normal(twin))]
            if not expected:
                waiting.append((twin, way))  # its state is in the next level
                continue
            found = [(name, digest(normal(after))) for name, after in expand(world, twin, way)]
            assert digest(found) == expected, f"`normal` drops what decides after {way}"
            twins_checked += 1
        twins, level = waiting, following
        report(Found(len(successors), transitions, depth, not level, twins_checked))
    return Found(len(successors), transitions, depth, not level, twins_checked)


def expand(world: World, machine: Machine, way: Way) -> Iterator[tuple[str, Machine]]:
    """Yield each operation that does something, and the machine after it."""
    for name, operate in operations(world):
        after = operate(machine)
        if after is None:
            continue
        withdrawn = {version for version, _ in after.taken}
        if not withdrawn.isdisjoint(after.serves):
            raise WithdrawnVersionServesError(
                f"{sorted(withdrawn)} withdrawn, {after.serves} answer: {(*way, name)}"
            )
        yield name, after


def digest(key: object) -> bytes:
    """Return 16 bytes for a state: there are too many to keep them whole."""
    return blake2b(repr(key).encode(), digest_size=16).digest()


@contextmanager
def directory() -> Iterator[Path]:
    """A directory in memory: the search writes the abort file some ten thousand times."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as found:
        yield Path(found)


def first(models: tuple[str, ...] = MODELS) -> Ledger:
    """'v2' was promoted over 'v1'; 'h' stands in."""
    promoted = Rollout(1, "v2", "v1", State.PROMOTED)
    return Ledger(TrafficPlan("m", 1, "v2", None, 0, "v1", "h", 1, pushes="v2"), (promoted,), models=models)
