"""The address of a client: whether it is on this machine, and as the name of a sender."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv6Address, ip_address


def is_local(transport: asyncio.BaseTransport) -> bool:
    """Return True if the peer of a connection is on this machine."""
    peer = transport.get_extra_info("peername")
    address = str(peer[0]) if isinstance(peer, tuple) and peer else ""
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"


def network_of(peer: object) -> str:
    """Return the address of a peer as the name of a sender. One host may use every address of an IPv6 network of 64 bits.

    >>> network_of(("192.0.2.7", 4711)), network_of(("::ffff:192.0.2.7", 4711, 0, 0)), network_of("")
    ('192.0.2.7', '192.0.2.7', '')
    >>> network_of(("2001:db8:1:2:3:4:5:6", 4711, 0, 0))
    '2001:db8:1:2::'
    """
    if not isinstance(peer, tuple) or not peer:
        return ""
    try:
        address = ip_address(str(peer[0]).partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))
