"""Messages that wake up workers, by huey: in an SQLite file, or in a Redis for several machines.

A message says only that a run may be waiting. Workers then look into the folders and take the run
that is first in line there. So a message may be lost, doubled or late, and the store of messages
may be unreachable or deleted. Never imports torch.
"""

import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

from huey import RedisHuey, SqliteHuey
from huey.registry import Message
from huey.serializer import Serializer
from redis import ConnectionPool, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from studio.base.errors import BadInput, shortened

QUEUE_DIR = ".queue"  # of the output folder
STORE = "messages.db"
SCHEMES = ("redis://", "rediss://", "unix://")
CONNECT_PATIENCE, ANSWER_PATIENCE = 2.0, 5.0  # seconds until a store counts as unreachable

log = logging.getLogger("delivery")


def check_url(url: str) -> str:
    """Return the address of a Redis unchanged. Raises BadInput if it is not one."""
    try:
        if not url.startswith(SCHEMES):
            raise ValueError("it must begin with " + " or ".join(SCHEMES))
        ConnectionPool.from_url(url)
    except ValueError as error:
        raise BadInput(
            f"'{shortened(url)}' is not an address of a queue: {shortened(error)}."
            " Give one such as redis://HOST:6379/0."
        ) from None
    return url


def notify(output_dir: Path, queue_url: str | None, name: str) -> None:
    """Send the message that the run with that folder name waits."""
    delivery = Delivery(output_dir, queue_url)
    delivery.send(name)
    delivery.close()


class Delivery:
    """One end of the message queue of an output folder. queue_url: of a Redis; None for SQLite.

    An unreachable store only makes the start of runs slower, and is noted in the log.
    """

    def __init__(self, output_dir: Path, queue_url: str | None = None) -> None:
        self._store = output_dir / QUEUE_DIR / STORE
        self._url = queue_url
        self._huey: SqliteHuey | RedisHuey | None = None
        self._is_unreachable = False

    @property
    def waits(self) -> bool:
        """Whether `receive` waits for a message, so that the caller need not sleep."""
        return self._url is not None and not self._is_unreachable

    def send(self, name: str) -> None:
        """Send the message that the run with that folder name waits."""
        self._attempt(lambda huey: huey.enqueue(self._wake.s(name)))

    def receive(self) -> bool:
        """Take a message; returns whether there was one. A Redis waits for one for a second."""
        return self._attempt(lambda huey: huey.dequeue()) is not None

    def close(self) -> None:
        """Close the store."""
        if self._huey is not None:
            self._huey.storage.close()
            self._huey = None

    def _attempt(self, do: Any) -> Any:
        try:
            answer = do(self._connected())
            self._is_unreachable = False
            return answer
        except (RedisError, sqlite3.Error, OSError, ValueError, TypeError) as error:
            if not self._is_unreachable:
                log.info("messages of the queue cannot be delivered: %s", error)
            self._is_unreachable = True
            self._start_afresh(error)
            return None

    def _connected(self) -> SqliteHuey | RedisHuey:
        if self._huey is not None and (self._url or self._store.exists()):
            return self._huey
        self.close()
        options: dict[str, Any] = {"results": False, "serializer": JsonSerializer()}
        if self._url:
            self._huey = RedisHuey("studio", connection_pool=_pool(self._url), **options)
        else:
            self._store.parent.mkdir(parents=True, exist_ok=True)
            self._huey = SqliteHuey("studio", filename=str(self._store), **options)
        self._wake = self._huey.task(name="wake")(_wake)
        return self._huey

    def _start_afresh(self, error: Exception) -> None:
        """Close the store, and delete a broken SQLite file; one that is only locked stays."""
        self.close()
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError
        ):
            for path in self._store.parent.glob(f"{STORE}*"):
                path.unlink(missing_ok=True)


class JsonSerializer(Serializer):
    """Messages as JSON. huey's own serializer unpickles, and so executes, what a stranger sent."""

    def _serialize(self, data: Message) -> bytes:
        return json.dumps(data).encode()

    def _deserialize(self, data: bytes) -> Message:
        return Message(*json.loads(data))


def _wake(name: str) -> None:
    """The task that a message names. Workers only receive messages and never execute the task."""


def _pool(url: str) -> ConnectionPool:
    return ConnectionPool.from_url(
        url,
        socket_connect_timeout=CONNECT_PATIENCE,
        socket_timeout=ANSWER_PATIENCE,
        retry=Retry(NoBackoff(), 0),
    )
