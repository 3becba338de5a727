"""A training that takes a given time."""

from __future__ import annotations

from abc import ABC, abstractmethod

from studio.engines.sharing import sharing


class TimedTraining(ABC):
    """Trains for `seconds` seconds in all, of which `spent` are over."""

    seconds: float
    spent: float

    @abstractmethod
    def train_a_while(self) -> None:
        """Train for some of the time that is left."""

    @abstractmethod
    def save(self) -> None:
        """Write what resuming needs, and the weights."""

    def run(self) -> None:
        """Train until the time is over; save now and then, at the end, and when stopped."""
        try:
            while self.spent < self.seconds:
                with sharing:
                    self.train_a_while()
                self.save()
        except BaseException:
            self.save()
            raise
