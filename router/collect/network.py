"""A visitor's address: the connection's, or where that is a trusted proxy's, what its X-Forwarded-For says."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from router.normalise import public_ip


class Network:
    """The proxies that are trusted, as CIDRs."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = tuple(ipaddress.ip_network(each, strict=False) for each in trusted)

    def visitor(self, peer: str | None, forwarded: str | None) -> str | None:
        """The last address in the chain that no trusted proxy vouches further for."""
        chain = [each.strip() for each in (forwarded or "").split(",") if each.strip()]
        address = peer
        while chain and address is not None and self._trusts(address):
            address = chain.pop()
        return public_ip(address)

    def _trusts(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped  # an IPv4 peer, as whoever takes both kinds on one socket writes it
        return any(ip in network for network in self._trusted if network.version == ip.version)
