"""Run folders: their names, their files, what they say about themselves. Never imports torch.

The process that makes a run and those that look at it meet only in its folder. Every file there is
whole or absent at every moment: it is written under another name, then renamed.
"""

import itertools
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput, shortened
from studio.base.files import MAX_PATH, atomic_write, disk_failure, read_json, to_json, unwritable
from studio.runs import claims
from studio.runs import details as run_details
from studio.runs.claims import Claim
from studio.runs.details import DETAILS, now, read_details, status_of

SCHEMA_VERSION = 1
FOLDER_TIME = "%Y%m%dT%H%M%S"  # at the beginning of a run folder's name
ID_LENGTH = 8
ACTIVE = ("queued", "running")
UPSCALINGS = ".upscaling"  # of the output folder; see `upscalings.py`

PICTURE = "output.PNG"
VIDEO = "anim.mp4"
LIVE_VIDEO = "anim.part.mp4"
PROGRESS = "progress.json"
PREVIEW = "preview.JPEG"
STOP = "stop"
LAST = "last"  # marks a run that no other follows, whatever its details say
START = "start.PNG"
INIT_IMAGE = "init-image.JPEG"
MASK = "mask.PNG"
