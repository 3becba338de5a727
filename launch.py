"""Start the page: `python launch.py [options of app.py]`.

Streamlit by itself moves on from a port in use without a word; this names it.
"""

import os
import socket
import sys
from pathlib import Path

from errors import BadInput

PORT = 8501
APP = Path(__file__).with_name("app.py")


def in_use(port: int, host: str = "localhost") -> bool:
    """Whether a program has `port` on an address of this machine."""
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


def free_port(first: int = PORT, host: str = "localhost") -> int:
    """`first`, or the next port that is free, which is then said on stderr. Raises BadInput."""
    port = next((port for port in range(first, 65536) if not in_use(port, host)), None)
    if port is None:
        raise BadInput(f"All ports from {first} on are in use. Choose a smaller one.")
    if port != first:
        message = f"Port {first} is in use by another program (or by this page, opened before)."
        print(f"{message} Using the next free one, {port}.", file=sys.stderr, flush=True)
    return port


def main(options: list[str]) -> None:
    """Become Streamlit, so that its signals and exit status are ours."""
    streamlit = [sys.executable, "-m", "streamlit", "run", str(APP)]
    os.execv(sys.executable, [*streamlit, f"--server.port={free_port()}", "--", *options])


if __name__ == "__main__":
    main(sys.argv[1:])
