"""Lineage: what was made from what, from a batch to the answers that it reached, walked both ways.

The graph is never held as a whole. A walk asks for the neighbours of one node at a time, so that what a batch
touched costs what it touched, however long the history around it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from holdfast.errors import InputError


class Kind(StrEnum):
    """What a node is."""

    BATCH = "batch"  # one load of a batch: feed/batch@epoch
    SNAPSHOT = "snapshot"
    VERSION = "version"
    ROLLOUT = "rollout"
    PLAN = "plan"  # a traffic plan: what servers were told to do
    ANSWERS = "answers"  # everything that a version answered; named by the version
    LABELS = "labels"  # what came back for these answers; named by the version


CHILDREN: Final[dict[Kind, tuple[Kind, ...]]] = {
    Kind.BATCH: (Kind.BATCH, Kind.SNAPSHOT),
    Kind.SNAPSHOT: (Kind.VERSION,),
    Kind.VERSION: (Kind.ROLLOUT, Kind.PLAN, Kind.ANSWERS),
    Kind.ROLLOUT: (Kind.PLAN,),
    Kind.PLAN: (),
    Kind.ANSWERS: (Kind.LABELS,),
    Kind.LABELS: (),
}
"""Which kinds are made from which. The kinds come in the order of their making, and a load is let in only against loads that
were there before it, so no walk can go in a circle.
"""


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """One thing that was made. `name` is unique among the nodes of its kind.

    >>> str(Node(Kind.ROLLOUT, "5"))
    'rollout:5'
    """

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    @classmethod
    def load(cls, feed: str, batch: str, epoch: int) -> Node:
        """The node of one load.

        >>> Node.load("weather", "2013-01", 0).name
        'weather/2013-01@0'
        """
        return cls(Kind.BATCH, f"{feed}/{batch}@{epoch}")


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """`child` was made from `parent`."""

    parent: Node
    child: Node


Neighbours: TypeAlias = Callable[[Node], Iterable[Node]]
"""The nodes next to one node, in the direction of the walk."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a walk found: `nodes` in the order in which they were reached, `start` first, and every edge between them."""

    start: tuple[Node, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def names(self, kind: Kind) -> tuple[str, ...]:
        """The names of the nodes of one kind, in the order in which they were reached."""
        return tuple(node.name for node in self.nodes if node.kind is kind)


def walk(start: Sequence[Node], neighbours: Neighbours, *, up: bool = False) -> Lineage:
    """The closure of `start` under `neighbours`: everything made from it or, going `up`, everything it was made from.

    Each node is asked for its neighbours once, so the cost is that of the nodes and edges found.

    >>> graph = {"a": ["s1"], "s1": ["v1", "v2"]}
    >>> kinds = {"a": Kind.BATCH, "s1": Kind.SNAPSHOT, "v1": Kind.VERSION, "v2": Kind.VERSION}
    >>> found = walk([Node(Kind.BATCH, "a")], lambda n: [Node(kinds[m], m) for m in graph.get(n.name, [])])
    >>> found.names(Kind.VERSION)
    ('v1', 'v2')
    """
    reached = dict.fromkeys(start)
    waiting = list(reached)
    edges: dict[Edge, None] = {}
    for node in waiting:  # grows while it is walked
        for other in neighbours(node):
            edges[Edge(other, node) if up else Edge(node, other)] = None
            if other not in reached:
                reached[other] = None
                waiting.append(other)
    return Lineage(tuple(start), tuple(reached), tuple(edges))


def tree(lineage: Lineage, tell: Callable[[Node], str], *, up: bool = False) -> list[str]:
    """The lines of `lineage` as a tree under its start; what stands in several places is unfolded in the first.

    `tell` says what a node is, in a few words.
    """
    below: dict[Node, list[Node]] = {}
    for edge in lineage.edges:
        near, far = (edge.child, edge.parent) if up else (edge.parent, edge.child)
        below.setdefault(near, []).append(far)
    lines: list[str] = []
    told: set[Node] = set()
    waiting = [(node, "", "") for node in reversed(lineage.start)]
    while waiting:
        node, lead, indent = waiting.pop()
        again = node in told and node in below
        lines.append(f"{lead}{tell(node)}" + (" (see above)" if again else ""))
        if again:
            continue
        told.add(node)
        under = below.get(node, [])
        for place in range(len(under) - 1, -1, -1):
            last = place == len(under) - 1
            waiting.append(
                (under[place], indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  "))
            )
    return lines


def parse(text: str) -> Node:
    """The node that `text` names, as people write them; `InputError` HF101 when it can name none.

    A batch is ``feed/batch`` or ``feed/batch@epoch``, a snapshot or version its name; any kind may be written out. A batch
    without an epoch has none in its name: it means the newest load.

    >>> parse("weather/2013-01@1"), parse("v3-1f2e3d4c").kind, parse("plan:7").name
    (Node(kind=<Kind.BATCH: 'batch'>, name='weather/2013-01@1'), <Kind.VERSION: 'version'>, '7')
    """
    kind, colon, name = text.partition(":")
    if colon and kind in set(Kind) and name:
        return Node(Kind(kind), name)
    if "/" in text and not colon:
        return Node(Kind.BATCH, text)
    if text[:1] in ("s", "v") and text[1:2].isdigit():
        return Node(Kind.SNAPSHOT if text[0] == "s" else Kind.VERSION, text)
    raise InputError(
        "HF101",
        f"{text!r} names nothing that has a lineage: write feed/batch, a snapshot (s7-...), a version (v3-...), "
        f"or one of {', '.join(f'{kind}:...' for kind in Kind)}",
    )
