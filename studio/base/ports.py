"""Ports to listen on."""

import socket
import sys

from studio.base.errors import BadInput


def in_use(port: int, host: str = "localhost") -> bool:
    """Whether a program uses `port` on an address of this machine."""
    try:
        socket.create_connection((host, port), timeout=1).close()
        return True
    except OSError:
        pass
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
        return False
    except OSError:
        return True


def free_port(first: int, host: str = "localhost") -> int:
    """`first`, or else the next free port, with a notice on stderr. Raises BadInput."""
    port = next((port for port in range(first, 65536) if not in_use(port, host)), None)
    if port is None:
        raise BadInput(f"All ports from {first} on are in use. Choose a smaller one.")
    if port != first:
        message = f"Port {first} is in use by another program (or by this page, opened before)."
        print(f"{message} Using the next free one, {port}.", file=sys.stderr, flush=True)
    return port
