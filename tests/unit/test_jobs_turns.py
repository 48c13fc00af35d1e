"""Whose turn it is in the workers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from monailabel_app.lib.jobs.turns import Turns


def nothing() -> None:
    """Do not give up."""


def test_the_lowest_number_goes_first_then_who_came_first():
    turns, order = Turns(), []

    def wait(name: str, priority: int) -> None:
        with turns.taken(priority, lambda: 1, nothing):
            order.append(name)

    with ThreadPoolExecutor(4) as pool:
        with turns.taken(0, lambda: 1, nothing):
            for name, priority in (("batch 1", 10), ("batch 2", 10), ("urgent", 0)):
                pool.submit(wait, name, priority)
                time.sleep(0.1)

    assert order == ["urgent", "batch 1", "batch 2"]


def test_no_more_pass_than_may():
    turns, inside, most = Turns(), 0, 0
    lock = threading.Lock()

    def pass_through() -> None:
        nonlocal inside, most
        with turns.taken(0, lambda: 2, nothing):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.02)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(6) as pool:
        for _ in range(6):
            pool.submit(pass_through)

    assert most == 2


def test_who_gives_up_lets_the_others_pass():
    turns = Turns()

    def give_up() -> None:
        raise TimeoutError

    with turns.taken(0, lambda: 1, nothing), pytest.raises(TimeoutError):
        with turns.taken(0, lambda: 1, give_up):
            pass

    with turns.taken(5, lambda: 1, nothing):
        pass
