"""Changing a run while it is made: asking for it, carrying it out before a step. No torch.

Nothing is lost or done twice, whenever the process is killed. A request stays in the run's folder
until the change is in details.json, with its step; one write of that file says both what changes
and which requests are taken. Only then the step is computed. A run that is resumed from an earlier
step makes the change again at the same step, as its details tell.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.base.errors import BadInput
from studio.base.files import unwritable
from studio.making.changes import as_details, changed, changes_in, in_force, noted
from studio.making.recipes import settings_in
from studio.runs import change_requests
from studio.runs.details_keys import CHANGES, REQUESTS_TAKEN
from studio.runs.storage import RunFolder
from studio.settings.run_settings import RunSettings
from studio.settings.values import make

if TYPE_CHECKING:
    from studio.engines.contract import Run
    from studio.making.recording import Recording

TOO_LATE = "A change came after the last step, so it was not made."


def settings_now(details: Mapping[str, Any]) -> RunSettings:
    """The settings in force in the step that a run is computing. Raises BadInput."""
    return settings_at(details, (details.get("num_steps") or 0) + 1)


def settings_at(details: Mapping[str, Any], step: int) -> RunSettings:
    """The settings by which a run computes a step. Raises BadInput."""
    began = settings_in(details)
    return make(type(began), in_force(began.model_dump(), changes_in(details), step))


def ask(folder: RunFolder, given: Mapping[str, Any]) -> None:
    """Let a run that is being computed use these values from its next step on.

    given: values by the settings' names; they may be text. Raises BadInput for a run that is not
    being computed, for settings that cannot change, for wrong values, and for a full disk.
    """
    status = folder.proven_status()
    if status != "running":
        raise BadInput(
            f"The run {folder.name} is {status}. Only a run that is being made can be changed."
        )
    wanted = changed(settings_now(folder.read()), given)
    try:
        change_requests.write(folder.path, {name: getattr(wanted, name) for name in given})
    except OSError as error:
        raise unwritable(folder.path.parent, error) from None


class Steering:
    """What changes in a run between its steps. recording: that of the run."""

    def __init__(self, recording: "Recording") -> None:
        self._recording = recording
        self._seen: set[Path] = set()

    def before_step(self, run: "Run") -> None:
        """Make the changes that are due, and those that somebody has asked for by now.

        Raises BadInput for a change in the details that cannot be made; a request that cannot be
        carried out only becomes a warning.
        """
        step, details = self._recording.steps_done + 1, self._recording.details
        if any(change.step == step for change in changes_in(details)):
            run.change(settings_at(details, step))
            self._recording.warn(run.warnings)
        if requests := self._new_requests():
            self._carry_out(requests, run, step)

    def refuse_the_rest(self) -> None:
        """Say so if a request came too late, after the last step."""
        for request in self._new_requests():
            change_requests.put_aside(request)
            self._recording.warn([TOO_LATE])

    def _new_requests(self) -> list[Path]:
        """Those that this run, in any process, has not taken yet."""
        found = change_requests.pending(self._recording.folder.path)
        new = [path for path in found if path not in self._seen]
        self._seen.update(new)
        taken = self._recording.details.get(REQUESTS_TAKEN) or []
        for path in (path for path in new if path.name in taken):
            change_requests.forget(path)  # the process that took it was killed
        return [path for path in new if path.name not in taken]

    def _carry_out(self, requests: list[Path], run: "Run", step: int) -> None:
        before = run.settings
        taken = [request for request in requests if self._is_made(request, run)]
        if not taken:
            return
        names, now = type(before).CHANGEABLE, run.settings
        new = {n: getattr(now, n) for n in names if getattr(now, n) != getattr(before, n)}
        changes = changes_in(self._recording.details)
        self._recording.note(
            {
                CHANGES: as_details(noted(changes, step, new) if new else changes),
                REQUESTS_TAKEN: [request.name for request in taken],
            }
        )
        self._recording.warn(run.warnings)
        for request in taken:
            change_requests.forget(request)

    def _is_made(self, request: Path, run: "Run") -> bool:
        """Change the run as a request asks; one that cannot be carried out is put aside."""
        try:
            run.change(changed(run.settings, change_requests.read(request)))
        except BadInput as error:
            self._recording.warn([f"A change was not made: {error.on_page}"])
            change_requests.put_aside(request)
            return False
        return True
