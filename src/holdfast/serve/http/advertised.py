"""The address that a server announces: one at which other machines reach it, never that of every interface."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Final

_ANY_ROUTE: Final = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Addresses of documentation (RFC 5737, RFC 3849): a datagram socket to them gets a source address, and nothing is sent."""


def advertised(
    bound: tuple[str, int], stated: tuple[str, int] | None, host_address: Callable[[], str]
) -> str:
    """Return the base URL that a server announces.

    Parameters
    ----------
    bound
        Host and port of its socket; the host may be that of every interface.
    stated
        Host and port of `HOLDFAST_ADVERTISE`, port 0 for that of the socket; None if it is not set.
    host_address
        Returns the address of this host, or its name; called only if nothing else states one.

    >>> advertised(("10.0.0.7", 8080), None, lambda: "10.0.0.9")
    'http://10.0.0.7:8080'
    >>> advertised(("0.0.0.0", 8080), None, lambda: "10.0.0.9"), advertised(("::", 8080), None, lambda: "2a01::9")
    ('http://10.0.0.9:8080', 'http://[2a01::9]:8080')
    >>> advertised(("0.0.0.0", 8080), ("web-1.internal", 0), str), advertised(("::", 8080), ("2a01::9", 80), str)
    ('http://web-1.internal:8080', 'http://[2a01::9]:80')
    """
    host, port = bound
    if stated is not None:
        return f"http://{_in_url(stated[0])}:{stated[1] or port}"
    return f"http://{_in_url(host_address() if is_every_address(host) else host)}:{port}"


def local_address(bound: tuple[str, int]) -> str:
    """Return the base URL at which this machine reaches the server.

    >>> local_address(("0.0.0.0", 8080)), local_address(("::", 8080)), local_address(("10.0.0.7", 80))
    ('http://127.0.0.1:8080', 'http://[::1]:8080', 'http://10.0.0.7:80')
    """
    host, port = bound
    if is_every_address(host):
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://{_in_url(host)}:{port}"


def address_of_host(family: int) -> str:
    """Return the address from which this host reaches others in the address family of a socket, else the name of the host."""
    families = (socket.AF_INET6, socket.AF_INET) if family == socket.AF_INET6 else (socket.AF_INET,)
    for each in families:
        try:
            with socket.socket(each, socket.SOCK_DGRAM) as unsent:
                unsent.connect((_ANY_ROUTE[each], 9))
                found = str(unsent.getsockname()[0])
        except OSError:  # there is no route
            continue
        if not ip_address(
            found
        ).is_link_local:  # it would need the name of an interface, which differs on other hosts
            return found
    return socket.gethostname()


def is_every_address(host: str) -> bool:
    """Return True if `host` means every address of the machine.

    >>> is_every_address("0.0.0.0"), is_every_address("[::]"), is_every_address("::1"), is_every_address("web-1")
    (True, True, False, False)
    """
    try:
        return ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


def _in_url(host: str) -> str:
    try:
        is_ipv6 = isinstance(ip_address(host.strip("[]")), IPv6Address)
    except ValueError:
        is_ipv6 = False
    return f"[{host.strip('[]')}]" if is_ipv6 else host
