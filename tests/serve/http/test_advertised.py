"""What a server announces as its address: never that of every interface."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InputError
from holdfast.serve.http.advertised import address_of_host, advertised, is_every_address, local_address
from holdfast.settings import Settings

HOSTS = st.sampled_from(["0.0.0.0", "[::]", "::", "127.0.0.1", "[::1]", "10.0.0.7", "[2a01::9]"])
STATED = st.none() | st.tuples(
    st.sampled_from(["web-1.internal", "10.1.2.3", "2a01::7"]), st.integers(0, 65535)
)


@given(HOSTS, st.integers(1, 65535), STATED, st.sampled_from(["10.0.0.9", "2a01::9", "web-1"]))
def test_an_announced_address_is_one_of_one_host(
    host: str, port: int, stated: tuple[str, int] | None, own: str
) -> None:
    found = urlsplit(advertised((host, port), stated, lambda: own))
    assert (found.scheme, found.path) == ("http", "")
    assert found.hostname is not None
    assert not is_every_address(found.hostname)
    assert found.port == (port if stated is None or not stated[1] else stated[1])


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_address_of_a_host_is_an_address_or_its_name(family: int) -> None:
    found = address_of_host(family)
    if found != socket.gethostname():
        assert not ip_address(found).is_unspecified


def test_a_host_without_a_route_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_route(*_: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("socket.socket.connect", no_route)
    assert address_of_host(socket.AF_INET) == socket.gethostname()


def test_this_machine_reaches_a_server_of_every_address() -> None:
    assert local_address(("0.0.0.0", 80)) == "http://127.0.0.1:80"


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0", "::", "[::]:80", "0.0.0.0:8080", "http://web", "web:0", "web:99999", "a b", "1.2.3", "web:", ":80", "-web",
     "a\nb", "999.1.1.1", "user@web", "web/path", "[10.0.0.7"],
)  # fmt: skip
def test_what_is_no_address_of_one_host_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"HF103.*HOLDFAST_ADVERTISE"):
        Settings.read(Path("/p"), {"HOLDFAST_ADVERTISE": text})
