"""One run: controllers, servers, a person and a bad network for some minutes, all of it from one seed.

What decides and commits is the real code on a real ledger: `control.loop.run` with its leases, probes and rollouts. What is
made up is the world around it: time, the network, the servers, what is requested, and when a process stands still or dies.
Every actor may be stopped before, inside and after each of its transactions.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from holdfast.control import loop
from holdfast.control.collect import collector
from holdfast.control.collect.collector import Stretch
from holdfast.control.collect.log_summary import summarise
from holdfast.control.probing.probe import probe
from holdfast.control.rollout import pause, post_promotion, reconcile, start
from holdfast.control.rollout.rollback import Request, rollback
from holdfast.errors import HoldfastError
from holdfast.monitor.version_check import Observation
from holdfast.records import TrafficPlan
from holdfast.rollout import RESTING, State
from holdfast.store import Store
from holdfast.store.db import leases, schema
from holdfast.store.rollout import rollouts, traffic_plans
from holdfast.store.serving import servers
from holdfast.store.telemetry import collected_log
from holdfast.store.telemetry.collected_log import Position
from tests.simulation.actors import Actor, Clock, Wire
from tests.simulation.checker import CONTROLLER, History, RejectedError, explained
from tests.simulation.expected_logs import EXPECTED, REFUSALS, Listener
from tests.simulation.initial_ledger import MODEL, VERSIONS, Ground, policy
from tests.simulation.simulated_servers import SimulatedServer
from tests.support.queries import read

BEGIN_US = 1_700_000_000_000_000
HOUR_US = 3_600_000_000
LEAST_ROUNDS, ROUNDS_TO_REST = 6, 40
"""How many rounds of one controller in a healed world are played at least, and within how many nothing is left to do."""


@dataclass
class Outcome:
    """What one run was about."""

    seed: int
    commits: int = 0
    takeovers: int = 0
    kills: int = 0
    disconnections: int = 0
    moves: list[str] = field(default_factory=list)
    rejected: str = ""


class Run:
    """The world of one seed."""

    def __init__(self, ground: Ground, seed: int) -> None:
        self.ground = ground
        self.chance = random.Random(seed)
        self.outcome = Outcome(seed)
        self.true_us, self.most_at_once = 0, 4
        self.calm = seed % 3 == 0  # then no person meddles, and rollouts come far
        self.odd: list[str] = []
        ground.reset()
        self.policy = policy(self.chance, calm=self.calm)
        self.bad = {f"v{number}" for number in range(3, VERSIONS + 1) if self.chance.random() < 0.4}
        self.history = History(ground.home / "ledger.db")
        self.history.lease_changed = self._forget_looks
        self.history.reckoning.has_usage = self.policy.latency_quantile is not None
        self.controllers: list[Actor] = []
        self.people: list[Actor] = []
        self.made = 0
        self.hand = self._actor("hand", lambda _: None)
        self.hand.budget, self.hand.tired = 10**9, lambda: False
        self.near = self._store(self.hand)
        self.servers = [
            SimulatedServer(f"s{number}", self.chance, self.bad)
            for number in range(1, self.chance.choice([2, 2, 3, 4]))
        ]

    # --- one run ------------------------------------------------------------------------------------------------------

    def go(self, steps: int) -> Outcome:
        """Play `steps` steps, heal the world, and see that it comes to rest. `RejectedError` when a rule is broken."""
        listener = Listener(self.odd)
        log = logging.getLogger("holdfast.control")
        log.addHandler(listener)
        propagated, log.propagate = log.propagate, False
        try:
            if self.chance.random() < 0.8:
                _first_champion(self)
            for server in self.servers:
                self.history.reckoning.logs[server.name] = server.log
                self._announce(server)
            for name in range(self.chance.choice([2, 2, 2, 3])):
                self.controllers.append(self._controller(f"{CONTROLLER}-{name}"))
            for _ in range(steps):
                self._tick()
                self._step()
                self._nothing_odd()
            self._rest()
            self.history.reported_once()
        finally:
            for actor in (*self.controllers, *self.people):
                actor.kill()
            log.removeHandler(listener)
            log.propagate = propagated
            self.outcome.moves, self.outcome.takeovers = self.history.reported, self.history.takeovers
            self.history.close()
        return self.outcome

    def _step(self) -> None:
        draw = self.chance.random()
        if draw < 0.50:
            actor = self.chance.choice(self.controllers)
            self._go_on(actor)
            near = actor.place == "before write" and self._under_way() is not None
            if near and not self.calm and self.chance.random() < 0.3:
                self._person("roll back")  # what it has read is not so any more
        elif draw < 0.58:
            self.chance.choice(self.servers).follow(self._plan())
        elif draw < 0.70:
            self._traffic()
        elif draw < 0.75:
            self._person()
        elif draw < 0.80:
            self._disruption(self.chance.choice(self.controllers))
        elif draw < 0.84:
            self._server_disruption(self.chance.choice(self.servers))
        elif self.people:
            self._go_on(self.chance.choice(self.people))

    def _tick(self) -> None:
        # Most steps are short against a lease, a few much longer: then an actor has been away.
        pause_us = 4_000_000 if self.chance.random() < 0.05 else 150_000
        self.true_us += round(self.chance.expovariate(1.0) * pause_us)
        self.history.true_us = self.true_us

    def _go_on(self, actor: Actor) -> None:
        if not actor.ended:
            actor.resume(1 + round(self.chance.expovariate(1 / 40)))
        if actor in self.people and actor.ended:
            self.people.remove(actor)
        if actor.error is not None:
            code = actor.error.code if isinstance(actor.error, HoldfastError) else ""
            if isinstance(actor.error, RejectedError):
                raise actor.error
            if code not in REFUSALS:
                self.odd.append(f"{actor.name}: {actor.error!r}")

    def _nothing_odd(self) -> None:
        if self.odd:
            raise RejectedError("; ".join(self.odd))

    def _rest(self) -> None:
        """Heal everything, and let one controller go on: within bounded rounds nothing is left to do."""
        for actor in self.people:
            actor.kill()
        for server in self.servers:
            server.heal()
        self.policy = replace(self.policy, timeout=timedelta(days=9))
        survivor, *others = self.controllers
        for other in others:
            other.kill()
        if survivor.ended:
            survivor = self.controllers[0] = self._controller(survivor.name)
        survivor.disconnected = survivor.response_lost = False
        survivor.clock = Clock(survivor.clock.read(self.true_us), 1.0, self.true_us)
        self.most_at_once = 12
        logged = {server.name: len(server.log) for server in self.servers}
        for rounds in range(ROUNDS_TO_REST):
            if rounds > LEAST_ROUNDS and not self._unrest(logged):
                return
            self.true_us += 1_000_000
            self.history.true_us = self.true_us
            survivor.resume(10**9)
            for server in self.servers:
                server.follow(self._plan())
            self._traffic()
            self._nothing_odd()
        raise RejectedError(f"after {ROUNDS_TO_REST} rounds in a healed world: {self._unrest(logged)}")

    def _unrest(self, logged: dict[str, int]) -> str:
        """What is still to be done, although everybody can; empty when nothing is."""
        row, plan = self._under_way(), self._plan()
        behind = [server.name for server in self.servers if plan is not None and server.follows != plan]
        if behind:
            return f"{behind} do not follow plan {plan}"
        seen = self.history.now
        left = {name: many for name, many in logged.items() if seen.collected.get(name, (0, 0))[0] < many}
        if left:
            return f"of the records {left} that were logged long ago only {seen.collected} are collected"
        if row is None:
            return ""
        found = [each for each in seen.evidence.values() if each.rollout == row.rollout_id]
        harm = [each for each in found if each.log_e >= each.log_bound]
        if harm and row.champion is not None and row.state not in (State.ROLLING_BACK, *RESTING):
            return f"harm is shown, and rollout {row.rollout_id} is {row.state}: {harm}"
        if row.state in (State.ROLLING_BACK, State.VERIFYING):
            return f"rollout {row.rollout_id} is still {row.state}, and all servers answer"
        return ""

    # --- controllers --------------------------------------------------------------------------------------------------

    def _controller(self, name: str) -> Actor:
        def run(actor: Actor) -> None:
            doing = {
                "collecting the logs": lambda *given, now_us: self._collect(actor, *given, now_us=now_us),
                "probing the servers": lambda *given, now_us: probe(
                    *given, now_us=now_us, look=lambda requested: self._look(actor, requested)
                ),
                "carrying the rollout on": reconcile.reconcile,
                "watching the promotion": post_promotion.carry,
            }

            def wait(_seconds: float) -> bool:
                actor.pause()
                return False

            def clock_us() -> int:
                actor.looks.append(actor.clock.read(self.true_us))
                return actor.looks[-1]

            loop.run(self._store(actor), MODEL, holder=name, clock_us=clock_us, wait=wait, doing=doing)

        self.made += 1
        return self._actor(f"{name}#{self.made}", run)

    def _actor(self, name: str, run: Callable[[Actor], None]) -> Actor:
        hours = self.chance.choice([0, 0, 0, -1, 1, 24])
        clock = Clock(BEGIN_US + hours * HOUR_US, self.chance.choice([1.0, 1.0, 0.5, 2.0]), 0)
        clock.since_us = self.true_us
        clock.offset_us += self.true_us
        return Actor(name, clock, run, lambda: self.chance.random() < 0.2)

    def _store(self, actor: Actor) -> Store:
        """The store as `actor` reaches it."""
        return Store(self.ground.home, Wire(self.ground.store.ledger, actor, self.history.committed))

    def _forget_looks(self) -> None:
        for actor in self.controllers:
            actor.looks.clear()

    def _look(self, actor: Actor, requested: Any) -> dict[str, Observation]:
        found = {}
        for each in requested:
            server = next(known for known in self.servers if known.name == each.server)
            if actor.disconnected or not server.reachable or server.follows is None:
                found[each.server] = Observation(None, None, "no response", is_reachable=False)
                continue
            plan, version = server.follows.plan_id, server.follows.intended
            self.history.observed.add((server.name, plan, version))
            found[each.server] = Observation(plan, version)
        return found

    def _collect(self, actor: Actor, store: Store, model: str, lease: leases.Lease, *, now_us: int) -> None:
        """What servers logged is delivered late, in any order, in part and sometimes again."""
        for server in self.servers:
            if not server.reachable:
                continue
            with store.ledger.read() as connection:
                known = collected_log.positions(connection, server.name).get(0, Position(server.name, 0, 0))
            most = self.chance.randint(1, self.most_at_once)
            found = server.log[known.collected_bytes : known.collected_bytes + most]
            if not found:
                continue
            groups = [group for record in found for group in record.groups]
            self.chance.shuffle(groups)
            self.history.reckoning.handed[actor.name, server.name] = known.collected_bytes, tuple(groups)
            summary = replace(
                summarise(()),
                predictions=sum(record.requests for record in found),
                # It is what a bound on latency is frozen from, and nothing else here requests it.
                usage=tuple(row for record in found for row in record.usage)
                if self.policy.latency_quantile
                else (),
                requests=tuple(groups),
            )
            stretch = Stretch(model, known, known.collected_bytes + len(found), summary)
            collector.commit_stretch(store, lease, stretch, now_us=now_us)
            if self.chance.random() < 0.3:
                collector.commit_stretch(store, lease, stretch, now_us=now_us)
        collector.close_windows(store, model, lease, now_us=now_us)

    def _disruption(self, actor: Actor) -> None:
        match self.chance.choice(
            ["kill", "kill", "disconnect", "disconnect", "heal", "clock", "clock", "answer"]
        ):
            case "kill":
                actor.kill()
                self.outcome.kills += 1
                name = actor.name.partition("#")[0]
                twin = self.chance.random() < 0.3
                place = self.controllers.index(actor)
                self.controllers[place] = self._controller(name if twin else f"{name}x")
            case "disconnect":
                actor.disconnected = True
                self.outcome.disconnections += 1
            case "heal":
                actor.disconnected = False
            case "clock":
                jump_us = self.chance.choice([0, 0, -HOUR_US, HOUR_US, -2_000_000, 5_000_000])
                actor.clock.jump(self.true_us, jump_us, self.chance.choice([0.0, 0.5, 1.0, 1.0, 2.0]))
            case "answer":
                actor.response_lost = True
        if actor.disconnected and self.chance.random() < 0.5:
            actor.disconnected = False

    # --- the world ----------------------------------------------------------------------------------------------------

    def _traffic(self) -> None:
        minute_start_us = BEGIN_US + self.true_us // 60_000_000 * 60_000_000
        for server in self.servers:
            for version in server.response(minute_start_us):
                assert server.follows is not None
                self.history.responded(server.name, server.follows.plan_id, server.kept_plan, version)

    def _person(self, wish: str = "") -> None:
        wish = wish or self.chance.choice(["begin", "begin", "begin", "roll back", "pause", "resume"])
        version = f"v{self.chance.randint(2, VERSIONS)}"

        def run(actor: Actor) -> None:
            store, now_us = self._store(actor), actor.clock.read(self.true_us)
            # The queue of rollouts is no part of this simulation.
            policy = replace(self.policy, newer_version="refuse")
            model: Any = SimpleNamespace(name=MODEL, rollout=policy)
            match wish:
                case "begin":
                    start.request(store, model, version, actor="ann", now_us=now_us)
                case "roll back":
                    rollback(store, Request(MODEL, "ann", "smoke"), now_us=now_us)
                case "pause" | "resume":
                    act = pause.pause if wish == "pause" else pause.resume
                    act(store, MODEL, actor="ann", reason="a look", now_us=now_us)

        self.made += 1
        person = self._actor(f"ann#{self.made}", run)
        self.people.append(person)
        self._go_on(person)

    def _server_disruption(self, server: SimulatedServer) -> None:
        match self.chance.choice(["restart", "disconnect", "heal", "silence", "speak", "keep"]):
            case "restart":
                server.restart()
                self._announce(server)
            case "disconnect":
                server.disconnected = True
            case "heal":
                server.disconnected = False
            case "silence":
                server.reachable = False
            case "speak":
                server.reachable = True
            case "keep":
                server.keep()

    def _announce(self, server: SimulatedServer) -> None:
        row = servers.Server(server.name, MODEL, "http://127.0.0.1:1", self.ground.home / "nowhere", 1)

        def announce() -> None:
            with self.near.ledger.write() as connection:
                servers.announce(connection, row)

        self._by_hand(announce)

    def _by_hand(self, act: Callable[[], Any]) -> Any:
        """Act on the ledger, unless another stands still in a transaction: then it is left for another time."""
        try:
            return act()
        except HoldfastError as error:
            if error.code not in EXPECTED:
                raise
            return None

    def _plan(self) -> Any:
        return read(self.ground.store, traffic_plans.newest, MODEL)

    def _under_way(self) -> rollouts.RolloutRow | None:
        with self.ground.store.ledger.read() as connection:
            return rollouts.under_way(connection, MODEL)


def play(ground: Ground, seed: int, steps: int) -> Outcome:
    """One run of `seed`; what was rejected is in the outcome, with the command that plays it again."""
    run = Run(ground, seed)
    try:
        return run.go(steps)
    except RejectedError as error:
        run.outcome.rejected = (
            f"seed {seed}: {error}\n  again: python -m tests.simulation.run --seed {seed} --runs 1 --steps {steps} -v\n  "
            f"{explained(run.history)}"
        )
        return run.outcome


def _first_champion(run: Run) -> None:
    """v2 was promoted long ago, and the servers follow it."""
    with run.ground.store.ledger.write() as connection:
        number = rollouts.insert_pending(
            connection, model=MODEL, challenger="v2", champion=None, policy=run.policy.to_json(), reason="first",
            actor="ann", now_us=1,
        )  # fmt: skip
        connection.execute(schema.rollouts.update().values(state=State.PROMOTED))
        traffic_plans.append(
            connection, TrafficPlan(MODEL, 0, "v2", previous=None, fallback="v1", rollout_id=number), now_us=1
        )
    run.history.again()
    for server in run.servers:
        server.follow(read(run.ground.store, traffic_plans.newest, MODEL))
        server.keep()
