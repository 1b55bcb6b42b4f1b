"""Guard requests that change something against foreign pages and foreign names.

A browser sends requests of any page to any address. Three things keep foreign pages out: the browser names the page's
origin; it cannot send JSON to another origin without a preflight, which is not answered; and a foreign name that
points at this server (DNS rebinding) is in Host (Fetch Standard section 4.9; RFC 9110 section 7.4 for 421).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from holdfast.serve.http.exchange import Exchange

_MAX_HOSTS: Final = 256
"""So many values of Host are remembered as ours; a client chooses the port that it writes there."""
_TYPES: Final = (b"", b"application/json", b"application/octet-stream")


class RequestGuard:
    """Decides which requests may change something.

    Parameters
    ----------
    names
        Names of the server besides localhost and addresses: what it is bound to and what is set.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {name.lower().rstrip(".") for name in names} | {"localhost"}
        self._own_hosts: set[bytes] = set()

    def host_rejection(self, exchange: Exchange) -> tuple[int, str] | None:
        """Return status and message for a request under a name that is not the server's, else None."""
        host = exchange.headers.get(b"host", b"")
        if host not in self._own_hosts:
            if not self._is_own_host(host):
                return 421, "this server is not called by that name: see HOLDFAST_NAMES"
            if len(self._own_hosts) < _MAX_HOSTS:
                self._own_hosts.add(host)
        return None

    def rejection(self, exchange: Exchange) -> tuple[int, str] | None:
        """Return status and message for a request that is rejected, None for one that is accepted."""
        if (rejected := self.host_rejection(exchange)) is not None:
            return rejected
        host, origin = exchange.headers.get(b"host", b""), exchange.headers.get(b"origin")
        if origin is not None and origin.partition(b"://")[2].lower() != host.lower():
            return 403, "pages of other origins change nothing here"
        kind = exchange.headers.get(b"content-type", b"")
        if kind.partition(b";")[0].strip().lower() not in _TYPES:
            return 415, "a body is application/json, or application/octet-stream with binary tensors"
        return None

    def _is_own_host(self, host: bytes) -> bool:
        if not host:
            return True  # HTTP/1.0, which no browser speaks any more
        text = host.decode("latin-1").lower()
        name, colon, port = text.rpartition(":")
        if not colon or "]" in port:
            name = text
        elif not port.isdigit():
            return False
        if name in self._names or name.rstrip(".") in self._names or name.endswith(".localhost"):
            return True
        try:
            ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
        except ValueError:
            return False
        return True
