"""The gallery: find, look at and continue the runs in a folder, in the browser.

    python gallery.py [PATH] [-n 24] [--kiosk] [--read-only] [--host 127.0.0.1] [--port 5000]

It never imports torch. It writes into a run's folder only when a person cancels a waiting run or
moves it up. An upscaling that a person asks for goes into the queue.
"""

import argparse
import errno
import logging
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, jsonify, render_template, request
from waitress.server import BaseWSGIServer, MultiSocketServer, create_server
from werkzeug.exceptions import HTTPException, InternalServerError

from studio.base import faces
from studio.base.errors import BadInput
from studio.base.options import Parser, add_assets_dir
from studio.base.paths import ASSETS_DIR, OUTPUT_DIR, STATIC_DIR
from studio.base.ports import free_port
from studio.base.stopping import when_stdin_closes
from studio.gallery import guard
from studio.gallery.api import api
from studio.gallery.changes import changes
from studio.gallery.library import APP_URL, Library, Options
from studio.gallery.pages import pages, query_address, run_address
from studio.gallery.query import MAX_PER_PAGE

PORT = 5000
THREADS = 8
TOLD_WITH_ERRORS = ("Allow", "Content-Range", "Location")
MAX_BODY = 200_000  # bytes of a form; nothing is uploaded
# No thread ever waits for a client. Files and zips are read from the disk as fast as the client
# takes them, see `studio/gallery/sending.py`. All other answers are small enough to be buffered
# whole, so the size from which threads would wait is out of reach.
FOR_STALLED_CLIENTS = {
    "connection_limit": 400,  # each takes a socket and a file; most systems allow 1,024
    "asyncore_use_poll": True,
    "outbuf_high_watermark": 2**62,
    "log_socket_errors": False,
}
SEND_AHEAD = (socket.SOL_SOCKET, socket.SO_SNDBUF, 262_144)  # bytes that the system buffers


def create_app(output_dir: Path | str, options: Options | None = None) -> Flask:
    """The gallery of a folder as a WSGI application. Raises BadInput if there is no such folder."""
    folder, options = Path(output_dir).absolute(), options or Options()
    if not (os.access(folder, os.F_OK) and folder.is_dir()):
        raise BadInput(f"There is no folder {folder}. Name the folder that holds the run folders.")
    app = Flask(__name__, static_folder=str(STATIC_DIR), static_url_path=None)
    app.config["MAX_CONTENT_LENGTH"] = app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY
    app.extensions["gallery"] = Library(folder, options)
    guard.protect(app, hosts=options.hosts, can_change=options.can_change)
    for blueprint in (pages, changes, api):
        app.register_blueprint(blueprint)
    app.jinja_env.globals |= {"options": options}
    app.jinja_env.globals |= {"query_address": query_address, "run_address": run_address}
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    _tell_errors(app)
    return app


def _tell_errors(app: Flask) -> None:
    """Answer every error with a page, or programs with JSON, that says what to do."""

    def tell(message: str, status: int) -> Any:
        if request.path.startswith("/api/") or request.accept_mimetypes.best == "application/json":
            return jsonify(error=message), status
        return render_template("gallery/error.html", message=message, status=status), status

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Any:
        if isinstance(error, InternalServerError):
            message = (
                "This is a bug in the gallery; please report it. The terminal shows where it is."
            )
            return tell(message, 500)
        answer = app.make_response(tell(str(error.description), error.code or 500))
        answer.headers.extend(h for h in error.get_headers() if h[0] in TOLD_WITH_ERRORS)
        return answer

    @app.errorhandler(BadInput)
    def bad_input(error: BadInput) -> Any:
        return tell(str(error), 409)

    @app.errorhandler(sqlite3.Error)
    def broken_index(error: sqlite3.Error) -> Any:
        app.logger.error("The index is broken (%s) and is being rebuilt.", error)
        app.extensions["gallery"].index.renew()
        return tell("The index was broken and has been rebuilt. Reload the page.", 503)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Serve until Ctrl-C; returns the exit status: 0, or 2 for options that cannot be used."""
    try:
        args = _parse(sys.argv[1:] if argv is None else argv, prog)
        app = create_app(args.path, args.options)
        server, port = _listen(app, args.host, args.port)
    except BadInput as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    logging.getLogger("waitress.queue").setLevel(
        logging.ERROR
    )  # a wall of thumbnails fills the queue, which is normal
    listening = faces.Listening(port, args.host)
    known = None if args.kiosk else faces.announce(args.path.absolute(), "gallery", listening)
    with suppress(KeyboardInterrupt), known or nullcontext():
        if args.until_stdin_closes:
            _end_with_stdin()
        _announce(args, port)
        server.run()
    return 0


def _end_with_stdin() -> None:
    """As by Ctrl-C, which is ignored in what a shell starts in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    when_stdin_closes(lambda: os.kill(os.getpid(), signal.SIGINT))


def _parse(argv: Sequence[str], prog: str | None) -> argparse.Namespace:
    what = "Show the runs in a folder in the browser."
    parser = Parser(prog=prog, description=what, allow_abbrev=False)
    add = parser.add_argument
    add("path", metavar="PATH", nargs="?", type=Path, default=OUTPUT_DIR,
        help="the folder that holds the run folders [default: %(default)s]")  # fmt: skip
    add("-n", dest="per_page", metavar="N", type=int, default=24,
        help="pictures per page [default: 24]")  # fmt: skip
    add("--kiosk", action="store_true", help="pictures and prompts only; nothing can be changed")
    add("--interval", metavar="SECONDS", type=float, default=10.0,
        help="how long the slideshow shows each picture [default: 10]")  # fmt: skip
    add("--read-only", action="store_true", help="show everything, change nothing")
    add("--host", default="127.0.0.1",
        help="the address to listen on; 0.0.0.0 shows the gallery to the whole network"
        " [default: 127.0.0.1, this machine only]")  # fmt: skip
    add("--port", metavar="N", type=int, default=PORT,
        help="the port to listen on, or the next free one [default: 5000]")  # fmt: skip
    add(
        "--app-url",
        metavar="URL",
        default="",
        help="the address of the app [default: found if it runs, else http://localhost:8501]",
    )
    add_assets_dir(parser, default=ASSETS_DIR, help="where upscalers of your own are")
    add("--until-stdin-closes", action="store_true",
        help="end when standard input closes, for programs that start the gallery")  # fmt: skip
    args = parser.parse_args(argv)
    _check(args)
    args.options = Options(
        per_page=args.per_page,
        kiosk=args.kiosk,
        read_only=args.read_only,
        app_url=args.app_url.rstrip("/"),
        interval=args.interval,
        hosts=(args.host,),
        assets_dir=args.assets_dir.absolute(),
    )
    return args


def _check(args: argparse.Namespace) -> None:
    if not 1 <= args.per_page <= MAX_PER_PAGE:
        raise BadInput(f"-n must be from 1 to {MAX_PER_PAGE}; it was {args.per_page}.")
    if not 0.05 <= args.interval <= 86_400:
        raise BadInput(f"--interval must be from 0.05 to 86400 seconds; it was {args.interval:g}.")
    if not 1 <= args.port <= 65_535:
        raise BadInput(f"--port must be from 1 to 65535; it was {args.port}.")
    if args.app_url and not _is_web_address(args.app_url):
        raise BadInput(
            f"--app-url must be an address such as {APP_URL}; it was {args.app_url[:80]}."
        )
    try:
        socket.create_server((args.host, 0), family=_family(args.host)).close()
    except (OSError, UnicodeError):
        raise BadInput(f"--host {args.host[:80]} is not an address of this machine.") from None


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable()
    except ValueError:
        return False


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _listen(app: Flask, host: str, port: int) -> tuple[BaseWSGIServer | MultiSocketServer, int]:
    """The server on the first free port from `port` upwards, and that port."""
    while True:
        port = free_port(port, host)
        try:
            server = create_server(
                app,
                host=host,
                port=port,
                threads=THREADS,
                ident="",
                max_request_body_size=MAX_BODY,
                clear_untrusted_proxy_headers=True,
                **FOR_STALLED_CLIENTS,
            )
            server.adj.socket_options = [*server.adj.socket_options, SEND_AHEAD]
            return server, port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise BadInput(f"Port {port} of {host} cannot be used: {error.strerror}.") from None


def _announce(args: argparse.Namespace, port: int) -> None:
    if not faces.is_loopback(args.host):
        what = "see, mark and remove" if args.options.can_change else "see"
        print(
            f"Everyone on this machine's network can {what} these runs."
            + (" With --read-only they can only look." if args.options.can_change else ""),
            file=sys.stderr,
            flush=True,
        )
    name = f"[{args.host}]" if ":" in args.host else args.host
    print(f"The gallery of {args.path} is at http://{name}:{port} (Ctrl-C stops it)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
