"""Orders to stop: heard at once, before and while somebody waits, and from a signal handler."""

import os
import signal
import threading
import time

from ippd.stop import Stop


def test_a_wait_ends_after_its_time_or_with_the_order():
    stop = Stop()
    assert not stop.wait(0.01) and not stop.is_set()
    heard = []
    waiting = threading.Thread(target=lambda: heard.append(stop.wait(60)))
    begin = time.monotonic()
    waiting.start()
    stop.set()
    stop.set()
    waiting.join(30)
    assert heard == [True] and time.monotonic() - begin < 30
    assert stop.is_set() and stop.wait(60) and stop.wait(0)


def test_a_signal_handler_can_give_the_order():
    stop = Stop()
    before = signal.signal(signal.SIGUSR1, lambda *_: stop.set())
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert stop.wait(60)
    finally:
        signal.signal(signal.SIGUSR1, before)
