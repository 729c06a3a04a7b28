"""How far long work is: the code that does it says so, and whoever started it may listen, and end it."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

Part = TypeVar("Part")
Listener = Callable[[str, int, int], None]  # what is done, how many parts of it are done, of how many
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Calls `listener` at each `step` of this thread; an exception that it raises passes through, and ends the work."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def step(what: str, done: int, of: int) -> None:
    """Tells the listener, if there is one, that `done` of `of` parts are done; say it before each part."""
    if listener := _listener.get():
        listener(what, done, of)


def counted(what: str, parts: Iterable[Part], of: int) -> Iterator[Part]:
    """Yields `parts`, `of` in number, and tells the listener before each how many are done."""
    parts = iter(parts)
    for done in range(of):
        step(what, done, of)
        yield next(parts)
