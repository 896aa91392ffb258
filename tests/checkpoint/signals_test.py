# SPDX-License-Identifier: Apache-2.0
"""A stop signal sets a flag; handlers come back; a second Ctrl-C is obeyed at once."""

import signal
import threading

import pytest

from jft.checkpoint import StopSignal

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@BOTH
def test_a_signal_sets_the_flag_and_handlers_come_back(number):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        assert stop.name == signal.Signals(number).name
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@BOTH
def test_a_second_interrupt_is_obeyed_at_once(number):
    before = signal.getsignal(signal.SIGINT)
    with StopSignal() as stop:
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)  # repeated by schedulers: still the flag
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.name == signal.Signals(number).name
    assert signal.getsignal(signal.SIGINT) == before


def test_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), StopSignal():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) == before


def test_other_threads_may_use_it_without_effect():
    requested = []

    def work():
        with StopSignal() as stop:
            requested.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert requested == [False]
