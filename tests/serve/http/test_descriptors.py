"""The soft limit on descriptors is raised to what the connections need, as far as the hard limit permits."""

from __future__ import annotations

import subprocess
import sys

import pytest

from holdfast.serve.http.descriptors import SPARE

pytestmark = pytest.mark.process

SCRIPT = """
import logging, resource, sys
from holdfast.serve.http.descriptors import raise_limit
logging.basicConfig(stream=sys.stdout, format="%(levelname)s")
soft, hard, connections = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
raise_limit(connections)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "printed"),
    [
        (256, 4096, 1000, [str(1000 + SPARE)]),
        (4096, 4096, 1000, ["4096"]),
        (256, 1024, 1000, ["WARNING", "1024"]),
    ],
    ids=["raised", "enough", "forbidden"],
)
def test_the_soft_limit_is_raised(soft: int, hard: int, connections: int, printed: list[str]) -> None:
    command = [sys.executable, "-c", SCRIPT, str(soft), str(hard), str(connections)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == printed
