"""Refuses every connection of a Python process but those to its own machine, and keeps a list of what it refused."""

import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import Any

LIST = "TESTS_REFUSED_CONNECTIONS"  # environment variable: the file that names what was refused, a line each
NAMED = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")  # events whose first argument is a host
ADDRESSED = ("socket.connect", "socket.sendto", "socket.sendmsg")  # and those of a socket and an address


def block_network() -> None:
    """From now on this process reaches nothing but this machine: anything else is a ConnectionError.

    The hook cannot be taken off again, neither by us nor by a library.
    """
    sys.addaudithook(_refuse)


def _refuse(event: str, words: tuple[Any, ...]) -> None:
    if not event.startswith("socket."):
        return
    if event in NAMED:
        host = words[0]
    elif event in ADDRESSED and words[0].family in (socket.AF_INET, socket.AF_INET6) and words[1]:
        host = words[1][0]
    else:
        return
    if not is_here(host):
        if place := os.environ.get(LIST):
            with Path(place).open("a") as file:
                file.write(f"{event} {host!r} {' '.join(sys.argv[:2])}\n")
        raise ConnectionError(f"tests run without a network, but something asked for {host!r}")


def is_here(host: str | bytes | None) -> bool:
    """Whether a host is this machine, by its name or a loopback address."""
    name = host.decode() if isinstance(host, bytes) else host
    if not name or name in ("localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
