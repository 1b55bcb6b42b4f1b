"""A bucket of an S3 on this machine, for the tests that ask for it."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 on this machine."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("obstore") is None:
        pytest.skip("moto[server] or obstore is not installed")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.s3_server", str(port)], stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert server.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.kill()
    server.wait()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bytes], object]:
    """Puts objects into a bucket that is the environment's."""
    import http.client

    import obstore
    from obstore.store import from_url

    for name, value in (
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "s3cr3t"),
        ("AWS_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=30)
    connection.request("PUT", "/deliveries")
    assert connection.getresponse().status in (200, 409)
    connection.close()
    monkeypatch.delenv("AWS_ALLOW_HTTP", raising=False)  # an endpoint by http is enough
    store = from_url("s3://deliveries", client_options={"allow_http": True})
    return lambda key, data: obstore.put(store, key, data)
