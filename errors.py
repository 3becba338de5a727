"""The errors that a person sees. Each message says what was wrong, what was found, what to do."""


class StudioError(Exception):
    """An error whose message is meant for the person at the screen."""


class BadInput(StudioError):
    """A choice that cannot be carried out; raised before anything is made."""


class RunFailed(StudioError):
    """A run that could not go on; what it had made is kept."""


class DiskFull(RunFailed):
    """There is no room left; other runs would fail as well."""
