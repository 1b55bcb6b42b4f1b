"""Whether another process may have a listening socket decides how a server closes it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from holdfast.serve.http.listening import is_held_by

OTHER_USER = 65534


def test_a_process_has_the_socket_or_has_it_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        assert is_held_by(os.getpid(), bound)
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
            assert not is_held_by(other.pid, bound)
            other.communicate(b"\n")
        assert not is_held_by(other.pid, bound), "it has ended"


@pytest.mark.skipif(os.getuid() != 0, reason="acting as another user takes the rights of root (setuid)")
def test_a_process_of_another_user_may_have_it() -> None:
    """Its files are not shown, and a filter on a socket that it still has would stop its connections for good."""
    with (
        socket.create_server(("127.0.0.1", 0)) as bound,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other,
    ):
        child = os.fork()
        if not child:
            os.setgid(OTHER_USER)
            os.setuid(OTHER_USER)
            os._exit(0 if is_held_by(other.pid, bound) else 1)
        _, status = os.waitpid(child, 0)
        other.send_signal(signal.SIGKILL)
    assert os.waitstatus_to_exitcode(status) == 0
