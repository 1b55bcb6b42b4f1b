"""Walks over lineage graphs equal the closure by brute force, and are printed as trees."""

from __future__ import annotations

import random

import pytest

from holdfast.errors import InputError
from holdfast.tables.lineage import Edge, Node, NodeKind, format_tree, parse_node, walk

CHILDREN = {
    NodeKind.BATCH: (NodeKind.BATCH, NodeKind.SNAPSHOT),
    NodeKind.SNAPSHOT: (NodeKind.VERSION,),
    NodeKind.VERSION: (NodeKind.ROLLOUT, NodeKind.PLAN, NodeKind.PREDICTIONS),
    NodeKind.ROLLOUT: (NodeKind.PLAN,),
    NodeKind.PLAN: (),
    NodeKind.PREDICTIONS: (NodeKind.LABELS,),
    NodeKind.LABELS: (),
}

GRAPHS = 1_000
SEED = 20_261_122
_KINDS = list(NodeKind)


def random_graph(rng: random.Random) -> dict[Node, list[Node]]:
    """Children by node; edges go only between kinds that may follow each other."""
    nodes = [Node(kind, f"{kind}{n}") for kind in _KINDS for n in range(rng.randrange(1, 6))]
    density = rng.random()
    return {
        parent: [child for child in nodes if child.kind in CHILDREN[parent.kind] and rng.random() < density]
        for parent in nodes
    }


def reachable(graph: dict[Node, list[Node]]) -> dict[Node, set[Node]]:
    """Every node's closure by Warshall's algorithm: O(n^3), and nothing in it knows of kinds or queues."""
    impact = {node: {node, *below} for node, below in graph.items()}
    for middle in graph:
        for node in graph:
            if middle in impact[node]:
                impact[node] |= impact[middle]
    return impact


def test_closures_equal_brute_force(capsys: pytest.CaptureFixture[str]) -> None:
    """R7: on 1,000 random graphs, both ways, nodes and edges."""
    rng = random.Random(SEED)
    for _ in range(GRAPHS):
        graph = random_graph(rng)
        above = {node: [parent for parent, below in graph.items() if node in below] for node in graph}
        impact = reachable(graph)
        start = rng.sample(list(graph), rng.randrange(1, 4))
        down = walk(start, lambda node, of=graph: of[node])
        wanted = set().union(*(impact[node] for node in start))
        assert set(down.nodes) == wanted
        assert len(down.nodes) == len(wanted)
        assert set(down.edges) == {Edge(p, c) for p in wanted for c in graph[p]}
        up = walk(start, lambda node, of=above: of[node], up=True)
        assert set(up.nodes) == {node for node in graph if impact[node] & set(start)}
        assert set(up.edges) == {Edge(p, c) for c in up.nodes for p in above[c]}
    with capsys.disabled():
        print(f" {GRAPHS} graphs, seed {SEED}", end="")


def test_each_node_is_visited_once() -> None:
    """What a batch touched costs what it touched."""
    requested: list[Node] = []
    layers = [
        [Node(kind, f"{kind}{n}") for n in range(20)]
        for kind in (NodeKind.BATCH, NodeKind.SNAPSHOT, NodeKind.VERSION)
    ]

    def below(node: Node) -> list[Node]:
        requested.append(node)
        place = next(n for n, layer in enumerate(layers) if node in layer)
        return layers[place + 1] if place + 1 < len(layers) else []

    walk(layers[0][:1], below)
    assert len(requested) == len(set(requested)) == 41


def test_a_tree_unfolds_what_stands_twice_only_once() -> None:
    load, first, second = Node.load("f", "b", 0), Node(NodeKind.SNAPSHOT, "s1"), Node(NodeKind.SNAPSHOT, "s2")
    version, rollout, plan = (
        Node(NodeKind.VERSION, "v1"),
        Node(NodeKind.ROLLOUT, "1"),
        Node(NodeKind.PLAN, "1"),
    )
    graph = {load: [first, second], first: [version], version: [rollout, plan], rollout: [plan]}
    found = walk([load], lambda node: graph.get(node, []))
    assert format_tree(found, str) == [
        "batch:f/b@0",
        "├─ snapshot:s1",
        "│  └─ version:v1",
        "│     ├─ rollout:1",
        "│     │  └─ plan:1",
        "│     └─ plan:1",
        "└─ snapshot:s2",
    ]


@pytest.mark.parametrize("text", ["", "weather", "batch:", "nothing:5", "x/y:z"])
def test_what_names_no_node_is_refused_with_the_ways_to_name_one(text: str) -> None:
    with pytest.raises(InputError, match=r"HF101.*feed/batch"):
        parse_node(text)
