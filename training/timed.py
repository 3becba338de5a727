"""A training that goes on for a given time."""

from __future__ import annotations

from abc import ABC, abstractmethod

from studio.engines.sharing import sharing


class TimedTraining(ABC):
    """Trains for `seconds`, of which `spent` are over; both are in seconds."""

    seconds: float
    spent: float

    @abstractmethod
    def train_a_while(self) -> None:
        """Train for some of the time that is left."""

    @abstractmethod
    def save(self) -> None:
        """Write what going on needs, and what the training is for."""

    def run(self) -> None:
        """Train until the time is spent; save now and then, at the end, and when stopped."""
        try:
            while self.spent < self.seconds:
                with sharing:
                    self.train_a_while()
                self.save()
        except BaseException:
            self.save()
            raise
