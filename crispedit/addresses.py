"""Tells public internet addresses from those that only this machine or its network can reach."""

import ipaddress
import socket

from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver

TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that a network translates to IPv4 ones, which may be its own (RFC 6052)."""


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.sixtofour or ip.teredo or ip in TRANSLATED:
            return False
        ip = ip.ipv4_mapped or ip
    return ip.is_global and not ip.is_multicast


def check(host: str) -> None:
    """ValueError for a host that is a non-public IP address; host names are checked by `Public`."""
    # Short forms such as 127.1 are not looked up, yet they reach an address.
    if not (":" in host or host.replace(".", "").isdigit()):
        return
    try:
        public = is_public(host.strip("[]"))
    except ValueError:
        public = False
    if not public:
        raise ValueError(f"{host} is not a public address, and private ones are not allowed")


class Public(ThreadedResolver):
    """Resolves names to public addresses only, so the address that was checked is the one that is connected to."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """ValueError if the name has no public address."""
        results = [r for r in await super().resolve(host, port, family) if is_public(r["host"])]
        if not results:
            raise ValueError(f"{host} has no public address, and private ones are not allowed")
        return results
