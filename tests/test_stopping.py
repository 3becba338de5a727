"""Signals as a request to stop."""

import signal
import threading

import pytest

from studio.base.stopping import Stop

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_is_noted_and_breaks_nothing(signum):
    with Stop() as stop:
        assert not stop.requested and stop.signum is None
        signal.raise_signal(signum)
        signal.raise_signal(signum)
        assert stop.requested and stop.signum == signum


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_interrupts_what_only_computes(signum):
    done = []
    with Stop() as stop:
        with pytest.raises(KeyboardInterrupt), stop.computing():
            signal.raise_signal(signum)
            done.append("went on")
        assert not done and stop.signum == signum
        signal.raise_signal(signum)  # afterwards the results are saved undisturbed


def test_nothing_is_computed_after_a_signal():
    with Stop() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), stop.computing():
            pytest.fail("computed")


def test_a_request_from_another_thread_waits_for_the_step():
    stop = Stop()
    with stop.computing():
        thread = threading.Thread(target=stop.request)
        thread.start()
        thread.join()
    assert stop.requested and stop.signum is None


def test_handlers_are_put_back():
    before = [signal.getsignal(signum) for signum in SIGNALS]
    with Stop():
        assert [signal.getsignal(signum) for signum in SIGNALS] != before
    assert [signal.getsignal(signum) for signum in SIGNALS] == before
