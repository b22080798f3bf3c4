"""Who is asking: the other end of the connection, or whom a trusted proxy names.

Anybody can write a header, so it counts only where the connection comes from a network that the
settings name, and only up to the first address that is not such a proxy's: a list is read from the
right, where each proxy has added whom it saw.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Networks = tuple[IPv4Network | IPv6Network, ...]


def parse_networks(text: str) -> Networks:
    """Return the networks in a comma-separated list.

    Raises:
        ValueError: naming what is not a network.

    >>> parse_networks("10.0.0.0/8, ::1")
    (IPv4Network('10.0.0.0/8'), IPv6Network('::1/128'))
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def caller(peer: str, forwarded_for: str | None, trusted: Networks) -> str:
    """Return the address of who is asking.

    Args:
        peer: the other end of the connection.
        forwarded_for: the ``X-Forwarded-For`` header; entries that are no addresses end the search.
        trusted: the networks of proxies.

    >>> caller("10.0.0.1", "1.2.3.4, 5.6.7.8, 10.0.0.2", parse_networks("10.0.0.0/8"))
    '5.6.7.8'
    >>> caller("9.9.9.9", "1.2.3.4", parse_networks("10.0.0.0/8"))
    '9.9.9.9'
    """
    found = peer
    for entry in reversed((forwarded_for or "").split(",")):
        if not _is_in(found, trusted):
            return found
        address = _address(entry.strip())
        if address is None:
            return found
        found = str(address)
    return found


def _is_in(text: str, networks: Networks) -> bool:
    address = _address(text)
    return address is not None and any(address in network for network in networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
