"""Addresses of the public internet, told from those that only this machine or its network can reach."""

from __future__ import annotations

import ipaddress
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that a network translates to IPv4 ones, its own among them (RFC 6052)."""


def is_public(address: str) -> bool:
    """Whether an IP address is of the public internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.sixtofour or ip.teredo or ip in TRANSLATED:
            return False
        ip = ip.ipv4_mapped or ip
    return ip.is_global and not ip.is_multicast


def check(host: str) -> None:
    """ValueError for a host that is written as an IP address which is not public; a name is left to `Public`."""
    # Numbers that are no whole address, such as 127.1, are never looked up, but reach one all the same.
    if not (":" in host or host.replace(".", "").isdigit()):
        return
    try:
        public = is_public(host.strip("[]"))
    except ValueError:
        public = False
    if not public:
        raise ValueError(f"{host} is no public address, and private ones are not allowed")


class Public(AbstractResolver):
    """Looks names up, and answers with public addresses only: what is checked is what is then connected to."""

    def __init__(self) -> None:
        self._names = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """ValueError if the name has no public address."""
        results = [r for r in await self._names.resolve(host, port, family) if is_public(r["host"])]
        if not results:
            raise ValueError(f"{host} has no public address, and private ones are not allowed")
        return results

    async def close(self) -> None:
        await self._names.close()
