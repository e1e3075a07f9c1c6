"""The engine's ticker: woken when there is something to do, and not by what it has been told already."""

from __future__ import annotations

import threading
from datetime import timedelta

from app.core.clock import SystemClock
from app.scheduler.engines.ticker import Ticker


def test_a_turn_that_asks_again_for_the_moment_it_waits_for_does_not_wake_itself() -> None:
    """What is put off by a rate limit is asked for in every turn: turns must not follow each other for it."""
    clock = SystemClock()
    later = clock.now() + timedelta(hours=1)
    turns = 0
    three = threading.Event()

    def turn() -> None:
        nonlocal turns
        turns += 1
        ticker.wake(later)
        ticker.wake(later + timedelta(seconds=1))
        if turns == 3:
            three.set()

    ticker = Ticker(turn, clock)
    ticker.start()
    assert three.wait(30)
    ticker.stop()
    ticker.join()
    # The first turn arms the moment, which wakes the ticker once; after that it turns once a second.
    assert turns <= 4
    assert len(ticker._alarms) == 2


def test_an_earlier_moment_wakes_a_ticker_that_waits_for_a_later_one() -> None:
    clock = SystemClock()
    taken = threading.Semaphore(0)
    ticker = Ticker(taken.release, clock)
    ticker.start()
    assert taken.acquire(timeout=30)
    ticker.wake(clock.now() + timedelta(hours=1))
    assert taken.acquire(timeout=30)
    ticker.wake(clock.now() + timedelta(milliseconds=50))
    assert taken.acquire(timeout=30)
    ticker.stop()
    ticker.join()
