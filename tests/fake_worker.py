"""worker.py whose processes serve with the fake engine: no torch, so that they start at once.

Called as `fake_worker.py [options of worker.py]`; it starts itself again as `serving.py` would be.
The project's folder belongs into PYTHONPATH. Each step is written down in $TRACE/<seed>, with the
process that took it.
"""

import contextlib
import os
import sys
import time
import types
from pathlib import Path

import fake_engine

import claims
import keeper
import recovery
import registry
import serving
import storage
import video
import worker

STEP_SECONDS = 0.03


class TracedRun(fake_engine.FakeRun):
    def iterate(self):
        with (Path(os.environ["TRACE"]) / str(self.settings.seed)).open("a") as trace:
            trace.write(f"{os.getpid()} {self.index + 1}\n")
        time.sleep(STEP_SECONDS)
        return super().iterate()


def serve():
    device = types.ModuleType("device")
    device.pick_device = lambda gpu: gpu
    device.describe = lambda device: "fake device"
    sys.modules["device"] = device
    kind = next(iter(registry.MODELS.values())).settings
    registry.MODELS = {n: registry.Model(kind, "fake_worker:TracedRun") for n in registry.MODELS}
    storage.HEARTBEAT_SECONDS = 0.5
    live_elsewhere()
    return serving.main()


def live_elsewhere():
    """As on a machine of its own, which sees no locks of others, if $MACHINE names it."""
    if name := os.environ.get("MACHINE"):
        claims.this_machine = serving.this_machine = lambda: name
        storage.RunFolder.computing = lambda folder: contextlib.nullcontext()
        video.fcntl = types.SimpleNamespace(flock=lambda *_: None, LOCK_EX=None)


def keep():
    keeper.SERVING = Path(__file__).resolve()
    keeper.RESTART_PAUSE = keeper.WATCH_SECONDS = 0.3
    recovery.SILENT_SECONDS = float(os.environ.get("SILENT_SECONDS", recovery.SILENT_SECONDS))
    os.environ["SERVING"] = "1"
    live_elsewhere()
    return worker.main()


if __name__ == "__main__":
    sys.exit(serve() if os.environ.get("SERVING") else keep())
