"""Listening to a pipeline for the length of one of its calls, from outside what it is made of.

A component's call is heard above ``nn.Module.__call__``: whatever sits on its ``forward``
(offload hooks, caches, LoRA layers) or in ``_compiled_call_impl`` lies beneath, and may come and
go. Between two calls of a pipe its components are as they were, so that compiling, saving,
copying and offloading them meets nothing of ours.
"""

from __future__ import annotations

import copy
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import nn

Listener = Callable[[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""``listener(object, call, args, kwargs)`` answers for ``call(*args, **kwargs)``."""

_KEPT = "_selective_sigma_listener"
"""Attribute of what is listened to until further notice: the listener lives as long as it does."""


class _Here(threading.local):
    """Listeners of this thread, by the ids of modules: another's may sample with the same model."""

    def __init__(self) -> None:
        self.listeners: dict[int, Listener] = {}


_here = _Here()
_lock = threading.Lock()
_held: dict[int, int] = {}
"""How many runs, of all threads, listen to a module."""


def components(pipe: Any) -> list[nn.Module]:
    """The modules that a pipeline, or anything with modules for attributes, is made of."""
    parts = getattr(pipe, "components", None)
    values = (parts if isinstance(parts, dict) else vars(pipe)).values()
    return list({id(value): value for value in values if isinstance(value, nn.Module)}.values())


@contextmanager
def modules(found: list[nn.Module], listener: Listener) -> Iterator[None]:
    """Within, ``listener`` answers every call of these modules that this thread makes."""
    before = [(module, _here.listeners.get(id(module))) for module in found]
    try:
        for module in found:
            _here.listeners[id(module)] = listener
            _hold(module, 1)
        yield
    finally:
        for module, other in before:
            if other is None:
                _here.listeners.pop(id(module), None)
            else:
                _here.listeners[id(module)] = other
            _hold(module, -1)


def listen(target: Any, listener: Listener) -> None:
    """Have ``listener`` answer ``target(...)`` until ``leave``."""
    vars(target)[_KEPT] = listener
    _hold(target, 0)


def leave(target: Any) -> None:
    """Give ``target`` its own class back; nothing where nobody listens."""
    if vars(target).pop(_KEPT, None) is not None:
        _hold(target, 0)


def listened(target: Any) -> bool:
    """Whether ``listen`` is in force on ``target``."""
    return _KEPT in vars(target)


def _hold(target: Any, more: int) -> None:
    """Count who listens to ``target``, and have its class be what that wants."""
    with _lock:
        count = _held.pop(id(target), 0) + more
        if count > 0:
            _held[id(target)] = count
        kind = type(target)
        heard = "_selective_sigma" in vars(kind)
        if heard != (count > 0 or listened(target)):
            # Not setattr(): a compiled module hands that on to the one within.
            object.__setattr__(target, "__class__", kind.__mro__[1] if heard else _heard(kind))


@functools.cache
def _heard(kind: Any) -> Any:
    """``kind`` with a call that can be answered for; one class each, so that torch.compile sees one."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        listener = _here.listeners.get(id(self)) or vars(self).get(_KEPT)
        own = functools.partial(kind.__call__, self)
        return own(*args, **kwargs) if listener is None else listener(self, own, args, kwargs)

    def reduce(self: Any, protocol: Any) -> Any:
        # A copy, and a file, is one of the original class, without a listener.
        function, arguments, *rest = kind.__reduce_ex__(self, protocol)
        if getattr(function, "__name__", "") == "__newobj__":
            # Of which pickle wants the class that is there now.
            function = kind.__new__
        if rest and isinstance(rest[0], dict):
            rest[0] = {name: value for name, value in rest[0].items() if name != _KEPT}
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
def methods(scheduler: Any, listeners: dict[str, Listener]) -> Iterator[None]:
    """Within, listeners answer for a scheduler's methods of these names, and for those of deep copies made within.

    ``ValueError`` where another thread is at it.
    """
    # Of an earlier run's, that came back with attributes which somebody had kept.
    stale = [name for name, value in vars(scheduler).items() if isinstance(value, _Method) and value.closed]
    for name in stale:
        del vars(scheduler)[name]
    before = {name: vars(scheduler)[name] for name in (*listeners, _STATE) if name in vars(scheduler)}
    if any(isinstance(method, _Method) and method.elsewhere for method in before.values()):
        raise ValueError(
            "Selective Sigma is sampling with this scheduler in another thread: give each pipe a scheduler of its own"
        )
    heard: list[_Method] = []
    _listen(scheduler, listeners, heard)
    try:
        yield
    finally:
        for method in heard:
            method.closed = True
            if vars(method.owner).get(method.name) is method:
                del vars(method.owner)[method.name]
        vars(scheduler).update(before)


def arguments_of(scheduler: Any, name: str, args: Any, kwargs: Any) -> dict[str, Any]:
    """What a scheduler's method is called with, by its parameters' names; empty where it does not take that.

    Its class says so, as what somebody put in its place on the object may take anything.
    """
    for method in (functools.partial(getattr(type(scheduler), name), scheduler), getattr(scheduler, name)):
        with suppress(TypeError, ValueError):
            return inspect.signature(method).bind(*args, **kwargs).arguments
    return {}


_STATE = "__getstate__"
"""Copies and files are made of what this returns, also where an attribute answers."""


def _listen(scheduler: Any, listeners: dict[str, Listener], heard: list[_Method]) -> None:
    for name, listener in listeners.items():
        if not callable(getattr(scheduler, name, None)):
            continue
        method = _Method(scheduler, name, getattr(scheduler, name), listener)
        vars(scheduler)[name] = method
        heard.append(method)
    state = _Method(scheduler, _STATE, lambda: _State(scheduler, listeners, heard), _answer)
    vars(scheduler)[_STATE] = state
    heard.append(state)


def _answer(_: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return call(*args, **kwargs)


class _Method:
    """Stands for a scheduler's method: an attribute, since pipelines compare schedulers' classes."""

    def __init__(self, owner: Any, name: str, method: Callable[..., Any], listener: Listener):
        self.owner = owner
        self.name = name
        self.closed = False
        """Whether the run that listens is over."""
        self._listener = listener
        self._thread = threading.get_ident()
        self.__wrapped__ = method

    @property
    def elsewhere(self) -> bool:
        """Whether this thread is another than the one that listens."""
        return not self.closed and threading.get_ident() != self._thread

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.closed or self.elsewhere:
            return self.__wrapped__(*args, **kwargs)
        return self._listener(self.owner, self.__wrapped__, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        # Pipelines and callers read what arguments it takes.
        return getattr(self.__wrapped__, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Method:
        # In a copy of the scheduler's attributes, which somebody keeps to give them back (panorama pipelines).
        return self


class _State(dict[str, Any]):
    """Attributes of a scheduler that is listened to, for a copy or a file of it, which are plain."""

    def __init__(self, scheduler: Any, listeners: dict[str, Listener], heard: list[_Method]):
        super().__init__({name: value for name, value in vars(scheduler).items() if not isinstance(value, _Method)})
        self._scheduler, self._listeners, self._heard = scheduler, listeners, heard

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        own = copy.deepcopy(dict(self), memo)
        if self._heard[0].closed or self._heard[0].elsewhere:
            return own
        # Sound's scheduler is a copy of the picture's; when the run is over, it is a plain one.
        other = memo[id(self._scheduler)]
        vars(other).update(own)
        _listen(other, self._listeners, self._heard)
        return vars(other)

    def __reduce__(self) -> Any:
        return dict, (dict(self),)
