"""Lineage: what was made from what, from a batch to the predictions that it reached, in both directions.

The whole graph is never loaded. A walk reads the neighbours of one node at a time, so its cost depends on what it
finds, not on the length of the history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from holdfast.errors import InputError


class NodeKind(StrEnum):
    """The kind of a node."""

    BATCH = "batch"  # one load of a batch: feed/batch@epoch
    SNAPSHOT = "snapshot"
    VERSION = "version"
    ROLLOUT = "rollout"
    PLAN = "plan"  # a traffic plan
    PREDICTIONS = "predictions"  # all predictions of a version; named by the version
    LABELS = "labels"  # labels of these predictions; named by the version


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """One node of the graph. `name` is unique among the nodes of its kind.

    >>> str(Node(NodeKind.ROLLOUT, "5"))
    'rollout:5'
    """

    kind: NodeKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    @classmethod
    def load(cls, feed: str, batch: str, epoch: int) -> Node:
        """Return the node of one load.

        >>> Node.load("weather", "2013-01", 0).name
        'weather/2013-01@0'
        """
        return cls(NodeKind.BATCH, f"{feed}/{batch}@{epoch}")


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """`child` was made from `parent`."""

    parent: Node
    child: Node


Neighbours: TypeAlias = Callable[[Node], Iterable[Node]]
"""The nodes next to one node, in the direction of the walk."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """The result of a walk: `nodes` in the order in which they were found, `start` first, and every edge between them."""

    start: tuple[Node, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def names(self, kind: NodeKind) -> tuple[str, ...]:
        """Return the names of the nodes of one kind, in the order in which they were found."""
        return tuple(node.name for node in self.nodes if node.kind is kind)


def walk(start: Sequence[Node], neighbours: Neighbours, *, up: bool = False) -> Lineage:
    """Return the closure of `start` under `neighbours`: everything made from it or, `up`, everything it was made from.

    Each node's neighbours are read once, so the cost is that of the nodes and edges found.

    >>> graph = {"a": ["s1"], "s1": ["v1", "v2"]}
    >>> kinds = {"a": NodeKind.BATCH, "s1": NodeKind.SNAPSHOT, "v1": NodeKind.VERSION, "v2": NodeKind.VERSION}
    >>> found = walk([Node(NodeKind.BATCH, "a")], lambda n: [Node(kinds[m], m) for m in graph.get(n.name, [])])
    >>> found.names(NodeKind.VERSION)
    ('v1', 'v2')
    """
    found = dict.fromkeys(start)
    waiting = list(found)
    edges: dict[Edge, None] = {}
    for node in waiting:  # grows while it is walked
        for other in neighbours(node):
            edges[Edge(other, node) if up else Edge(node, other)] = None
            if other not in found:
                found[other] = None
                waiting.append(other)
    return Lineage(tuple(start), tuple(found), tuple(edges))


def format_tree(lineage: Lineage, describe: Callable[[Node], str], *, up: bool = False) -> list[str]:
    """Return the lines of `lineage` as a tree under its start; a repeated node is expanded in its first place only.

    `describe` returns a short text for a node.
    """
    below: dict[Node, list[Node]] = {}
    for edge in lineage.edges:
        near, far = (edge.child, edge.parent) if up else (edge.parent, edge.child)
        below.setdefault(near, []).append(far)
    lines: list[str] = []
    printed: set[Node] = set()
    waiting = [(node, "", "") for node in reversed(lineage.start)]
    while waiting:
        node, lead, indent = waiting.pop()
        repeated = node in printed and node in below
        lines.append(f"{lead}{describe(node)}" + (" (see above)" if repeated else ""))
        if repeated:
            continue
        printed.add(node)
        children = below.get(node, [])
        for place in range(len(children) - 1, -1, -1):
            last = place == len(children) - 1
            waiting.append(
                (children[place], indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  "))
            )
    return lines


def parse_node(text: str) -> Node:
    """Return the node that `text` names. Raises `InputError` HF101 if it names none.

    A batch is ``feed/batch`` or ``feed/batch@epoch``, a snapshot or version its name; any kind may be a prefix. A
    batch without an epoch means the newest load.

    >>> parse_node("weather/2013-01@1"), parse_node("v3-1f2e3d4c").kind, parse_node("plan:7").name
    (Node(kind=<NodeKind.BATCH: 'batch'>, name='weather/2013-01@1'), <NodeKind.VERSION: 'version'>, '7')
    """
    kind, colon, name = text.partition(":")
    if colon and kind in set(NodeKind) and name:
        return Node(NodeKind(kind), name)
    if "/" in text and not colon:
        return Node(NodeKind.BATCH, text)
    if text[:1] in ("s", "v") and text[1:2].isdigit():
        return Node(NodeKind.SNAPSHOT if text[0] == "s" else NodeKind.VERSION, text)
    raise InputError(
        "HF101",
        f"{text!r} has no lineage: write feed/batch, a snapshot (s7-...), a version (v3-...), "
        f"or one of {', '.join(f'{kind}:...' for kind in NodeKind)}",
    )
