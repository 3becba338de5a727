"""A stand-in for the Hugging Face hub on this machine, which behaves well or badly."""

import hashlib
import http.server
import json
import re
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class FakeHub(http.server.ThreadingHTTPServer):
    """Serves repositories from memory.

    repositories: files by their paths, by name. licence: of all. cut: answers with a file break off
    after so many bytes, once each. lie: a path whose contents are not those that were told of.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.licence, self.revision = "openrail++", "a" * 40
        self.cut: int | None = None
        self.lie = ""
        self.gated = False
        self.tells_sizes = True
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def publish(self, name: str, folder: Path, **extra: bytes) -> None:
        """All files of a folder, and others by their paths."""
        paths = (path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self.repositories[name] = files | extra

    def fetched(self) -> list[str]:
        """The paths of the files that were asked for."""
        return [path.partition("/resolve/")[2].partition("/")[2] for path, _ in self.asked]

    def told(self, name: str) -> dict[str, Any]:
        """What the API says of a repository."""
        siblings = []
        for path, data in self.repositories[name].items():
            sibling: dict[str, Any] = {"rfilename": path}
            if self.tells_sizes:
                digest = hashlib.sha256(data).hexdigest()
                sibling |= {"size": len(data), "blobId": "b" * 40}
                if path.endswith(".safetensors"):
                    lfs = {"sha256": digest, "size": len(data), "pointerSize": 134}
                    sibling["lfs"] = lfs
            siblings.append(sibling)
        card = {"license": self.licence}
        return {
            "id": name,
            "sha": self.revision,
            "siblings": siblings,
            "cardData": card,
            "tags": [],
        }


class Handler(http.server.BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
            self._tell(found[1])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self.server.asked.append((path, self.headers.get("Range")))
            self._send(found[1], found[2])
        else:
            self._answer(404, b"")

    def _tell(self, name: str) -> None:
        if name not in self.server.repositories:
            self._answer(404, b"{}", **{"X-Error-Code": "RepoNotFound"})
            return
        self._answer(200, json.dumps(self.server.told(name)).encode())

    def _send(self, name: str, path: str) -> None:
        if self.server.gated:
            self._answer(403, b"", **{"X-Error-Code": "GatedRepo"})
            return
        data = self.server.repositories[name][path]
        if path == self.server.lie:
            data = bytes(len(data))
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        extent = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if asked else {}
        upto = None
        if self.server.cut is not None and path.endswith(".safetensors"):
            upto, self.server.cut = self.server.cut, None
        self._answer(206 if asked else 200, data[start:], upto, **extent)

    def _answer(self, status: int, body: bytes, upto: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:upto])
        if upto is not None:
            self.close_connection = True


def started() -> FakeHub:
    """A hub that answers until it is shut down."""
    hub = FakeHub()
    threading.Thread(target=hub.serve_forever, args=[0.02], daemon=True).start()
    return hub
