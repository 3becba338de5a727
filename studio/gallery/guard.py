"""Who may ask what: hosts, origins, tokens, and what browsers may do with the answers.

Never imports torch.
"""

import ipaddress
import secrets
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from flask import Flask, Response, abort, request

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
SAFE = ("GET", "HEAD", "OPTIONS")
TOKEN = "token"


def protect(app: Flask, *, hosts: Iterable[str], can_change: bool) -> None:
    """Refuse unknown hosts, and changes that none of our pages asked for.

    hosts: names of this machine, beside localhost and numeric addresses. If other names were
    accepted, a site whose name leads to this machine (DNS rebinding) could read our pages.

    The token is the same for everyone who can read our pages, and new at each start. Pages of other
    sites cannot read it, and that is all it is for.
    """
    known = {name.lower() for name in (*hosts, "localhost", *_own_names())}
    token = secrets.token_urlsafe(24)
    app.jinja_env.globals["csrf_token"] = token

    @app.before_request
    def check() -> None:
        if not _is_known(request.host, known):
            abort(
                400,
                f"The gallery does not answer to {request.host[:100]}. Use its numeric address, or"
                " start it with --host and that name.",
            )
        if request.method not in SAFE and request.routing_exception is None:
            _check_change(token, can_change)

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        response.headers.setdefault("Cache-Control", "no-cache")
        return response


def _check_change(token: str, can_change: bool) -> None:
    origin = request.headers.get("Origin")
    own = f"{request.scheme}://{request.host}"
    if origin is not None and origin.lower() != own.lower():
        abort(403, "A page of another site asked for this change.")
    if not can_change:
        abort(403, "This gallery is for looking only.")
    given = request.form.get(TOKEN, "")
    if not secrets.compare_digest(given.encode("utf-8", "replace"), token.encode()):
        abort(403, "The gallery was restarted since the page was loaded. Go back and reload it.")


def _is_known(host: str, known: set[str]) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    return name in known or _is_number(name)


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _own_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, f"{name.partition('.')[0]}.local"} if name else set()
