"""Listening to a pipeline for the length of one of its calls, from outside what it is made of.

A component's call is heard above ``nn.Module.__call__``: whatever sits on its ``forward``
(offload hooks, caches, LoRA layers) or in ``_compiled_call_impl`` lies beneath, and may come and
go. Between two calls of a pipe its components are as they were, so that compiling, saving,
copying and offloading them meets nothing of ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

Listener = Callable[[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""``listener(object, call, args, kwargs)`` answers for ``call(*args, **kwargs)``."""

_listeners: dict[int, Listener] = {}


@contextmanager
def modules(found: list[nn.Module], listener: Listener) -> Iterator[None]:
    """Within, ``listener`` answers every call of these modules."""
    before = [(module, _listeners.get(id(module))) for module in found]
    try:
        for module in found:
            listen(module, listener)
        yield
    finally:
        for module, other in before:
            if other is None:
                leave(module)
            else:
                _listeners[id(module)] = other


def listen(target: Any, listener: Listener) -> None:
    """Have ``listener`` answer ``target(...)`` until ``leave``."""
    _listeners[id(target)] = listener
    if not listened(target):
        # Not setattr(): a compiled module hands that on to the one within.
        object.__setattr__(target, "__class__", _heard(type(target)))


def leave(target: Any) -> None:
    """Give ``target`` its own class back; nothing where nobody listens."""
    _listeners.pop(id(target), None)
    if listened(target):
        object.__setattr__(target, "__class__", type(target).__mro__[1])


def listened(target: Any) -> bool:
    """Whether ``listen`` is in force on ``target``."""
    return "_selective_sigma" in vars(type(target))


@functools.cache
def _heard(kind: Any) -> Any:
    """``kind`` with a call that can be answered for; one class each, so that torch.compile sees one."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        listener = _listeners.get(id(self))
        own = functools.partial(kind.__call__, self)
        return own(*args, **kwargs) if listener is None else listener(self, own, args, kwargs)

    def reduce(self: Any, protocol: Any) -> Any:
        # A copy, and a file, is one of the original class.
        function, arguments, *rest = kind.__reduce_ex__(self, protocol)
        return (function, tuple(kind if a is type(self) else a for a in arguments), *rest)

    return type(
        kind.__name__,
        (kind,),
        {
            "__call__": functools.wraps(kind.__call__)(call),
            "__reduce_ex__": reduce,
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "__doc__": kind.__doc__,
            "_selective_sigma": True,
        },
    )


@contextmanager
def steps(scheduler: Any, listener: Listener) -> Iterator[None]:
    """Within, ``listener`` answers for ``scheduler.step``, and for that of copies made within."""
    before = vars(scheduler).get("step")
    scheduler.step = _Step(scheduler, listener)
    try:
        yield
    finally:
        if before is None:
            del scheduler.step
        else:
            scheduler.step = before


class _Step:
    """Stands for a scheduler's ``step``: an attribute, since pipelines compare schedulers' classes."""

    def __init__(self, scheduler: Any, listener: Listener):
        self._scheduler = scheduler
        self._listener = listener
        self.__wrapped__ = scheduler.step

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._listener(self._scheduler, self.__wrapped__, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        # Pipelines and callers read what arguments it takes.
        return getattr(self.__wrapped__, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        other = memo.get(id(self._scheduler))
        return self if other is None else _Step(other, self._listener)
