"""The rough time and memory of a run, told before it starts. Each engine estimates its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Estimate:
    """The time and memory of a run.

    seconds: of the whole run; None if it is endless. memory_bytes: at the peak, if known.
    measured: whether it is based on earlier runs on this device. too_large: what to say if the
    machine has less memory; "" if it has enough, or if that is not known.
    """

    seconds_per_step: float
    seconds: float | None
    memory_bytes: float | None
    measured: bool
    too_large: str = ""


def together(each: Sequence[Estimate], times: int = 1) -> Estimate:
    """The estimate of runs made one after the other, and of all that several times over."""
    endless = next((told for told in each if told.seconds is None), None)
    needed = [told.memory_bytes for told in each if told.memory_bytes is not None]
    return replace(
        endless or each[0],
        seconds=None if endless else times * sum(told.seconds or 0.0 for told in each),
        memory_bytes=max(needed, default=None),
        too_large=next((told.too_large for told in each if told.too_large), ""),
    )


def estimate_in_words(estimate: Estimate, device: str, runs: int = 1, waiting: float = 0.0) -> str:
    """The estimate as a sentence for the person.

    runs: how many runs it is for. waiting: seconds until the first of them begins.
    """
    if estimate.seconds is None:
        takes = f"about {duration(estimate.seconds_per_step)} a step until you stop it"
    else:
        takes = f"about {duration(estimate.seconds)}"
    if runs > 1:
        takes = f"{takes} for {runs} runs"
    if waiting:
        takes = f"{takes}, after about {duration(waiting)} for the runs before it,"
    if estimate.memory_bytes is not None:
        takes = f"{takes} and {estimate.memory_bytes / 1e9:.1f} GB of memory"
    basis = "based on your earlier runs" if estimate.measured else "a first guess"
    where = f" on {device}" if device else ""
    return f"Roughly: {takes}{where} ({basis}). {estimate.too_large}".rstrip()


def duration(seconds: float) -> str:
    """Seconds in words, as rough as one would say it."""
    if seconds < 1:
        return f"{seconds:.1g} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
