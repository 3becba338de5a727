"""worker.py with workers that use the fake engine: no torch, so they start at once.

Called as `fake_worker.py [options of worker.py]`; it starts itself again in place of
`studio.queue.worker_process`. PYTHONPATH must hold the project's folder. Each step is appended to
$TRACE/<seed>, with the pid of the process that took it.
"""

import os
import sys
import time
import types
from pathlib import Path

import fake_engine

import worker
from studio import engines
from studio.engines import registry
from studio.media import video
from studio.queue import keeper, recovery, slots, worker_process
from studio.runs import claims, details

STEP_SECONDS = 0.03


class TracedEngine(fake_engine.FakeEngine):
    run = "fake_worker:TracedRun"


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
    sys.modules["studio.engines.device"] = device
    engines.device = device
    sys.modules["fake_worker"] = sys.modules["__main__"]
    registry.ENGINES = dict.fromkeys(registry.ENGINES, "fake_worker:TracedEngine")
    details.HEARTBEAT_SECONDS = 0.5
    live_elsewhere()
    return worker_process.main()


def live_elsewhere():
    """Act as a separate machine, which sees no locks of others, if $MACHINE names one."""
    if name := os.environ.get("MACHINE"):
        claims.this_machine = slots.this_machine = worker_process.this_machine = lambda: name
        video.fcntl = types.SimpleNamespace(flock=lambda *_: None, LOCK_EX=None)


def keep():
    keeper.WORKER = (sys.executable, str(Path(__file__).resolve()))
    keeper.RESTART_PAUSE = keeper.WATCH_SECONDS = 0.3
    recovery.SILENT_SECONDS = float(os.environ.get("SILENT_SECONDS", recovery.SILENT_SECONDS))
    os.environ["SERVING"] = "1"
    live_elsewhere()
    return worker.main()


if __name__ == "__main__":
    sys.exit(serve() if os.environ.get("SERVING") else keep())
