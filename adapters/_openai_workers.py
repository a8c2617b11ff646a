"""A few threads that run the same function on many items, in order, until the first failure.

They are daemons, unlike those of concurrent.futures, so that a program that was interrupted ends when its user wants it
to, and not when the slowest server has answered.
"""

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

_GRACE_SECONDS = 5.0
"""How long an interrupted run waits for answers that are on their way: they are paid for."""

Task = Callable[[Any, threading.Event], Any]


class Stopped(Exception):
    """The run was stopped by another item's failure, or by its user; never seen outside."""


class Workers:
    """Threads for `run`, kept until `close`.

    >>> workers = Workers(2)
    >>> workers.run(lambda number, stop: number * number, [1, 2, 3])
    [1, 4, 9]
    >>> workers.close()
    """

    def __init__(self, count: int) -> None:
        """Prepare for `count` threads; they start with the first run."""
        self._count = count
        self._threads: list[threading.Thread] = []
        self._tasks: SimpleQueue[tuple[_Run, int] | None] = SimpleQueue()

    def run(self, function: Task, items: Sequence[Any]) -> list[Any]:
        """Return `function(item, stop)` of each item, in order.

        The first exception stops the items that were not begun, and sets `stop` for those that were; it is raised when
        these have ended.
        """
        if not items:
            return []
        self._start()
        run = _Run(function, items)
        try:
            for index in range(len(items)):
                self._tasks.put((run, index))
            run.wait()
        except BaseException:  # Ctrl-C while waiting
            run.stop.set()
            run.wait(_GRACE_SECONDS)
            raise
        if run.error is not None:
            raise run.error
        return run.results

    def close(self) -> None:
        """Let the threads end; a second call does nothing."""
        for _ in self._threads:
            self._tasks.put(None)
        self._threads = []

    def _start(self) -> None:
        while len(self._threads) < self._count:
            thread = threading.Thread(target=_work, args=(self._tasks,), name="calibwrap-openai", daemon=True)
            self._threads.append(thread)
            thread.start()


class _Run:
    """One call of `run`."""

    def __init__(self, function: Task, items: Sequence[Any]) -> None:
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.results: list[Any] = [None] * len(items)
        self._function = function
        self._items = items
        self._left = len(items)
        self._changed = threading.Condition()

    def wait(self, timeout: float | None = None) -> None:
        """Return when all items have ended, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._left == 0, timeout)

    def step(self, index: int) -> None:
        """Run one item; no exception leaves a thread."""
        try:
            if not self.stop.is_set():
                self.results[index] = self._function(self._items[index], self.stop)
        except BaseException as error:
            with self._changed:
                if self.error is None and not isinstance(error, Stopped):
                    self.error = error
            self.stop.set()
        finally:
            with self._changed:
                self._left -= 1
                self._changed.notify_all()


def _work(tasks: "SimpleQueue[tuple[_Run, int] | None]") -> None:
    """Take tasks until None comes. Knows the queue only, so that an owner who forgot `close` can be collected."""
    while (task := tasks.get()) is not None:
        run, index = task
        run.step(index)
        del run, task
