"""Listens to a pipeline's parts from outside, and leaves no trace in them.

During a call of the pipeline, the class of its modules and of its scheduler is replaced by a subclass. The class of the
pipeline itself is replaced from ``enable`` to ``disable``. The methods of the subclass ask a listener. Whatever sits on
a module's ``forward`` (offload hooks, caches, LoRA layers, compiled code) is called beneath the listener and may change
during the call. After the call, the parts have their own class again, and can be compiled, saved, copied or offloaded
as usual.
"""

from __future__ import annotations

import functools
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import diffusers
import numpy as np
import torch
from packaging.specifiers import SpecifierSet
from torch import nn

Listener = Callable[[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""``listener(target, call, args, kwargs)`` replaces ``call(*args, **kwargs)``, and returns what the caller gets."""

_LISTENER_ATTRIBUTE = "_selective_sigma_listener"
"""Attribute of an enabled pipeline that holds its listener, so that both live equally long."""


_listeners: dict[tuple[int, int], dict[str, Listener]] = {}
"""Listeners by (thread, id of the target), then by method. Another thread may sample with the same model."""
_lock = threading.Lock()


def components(pipe: Any) -> list[nn.Module]:
    """The modules of a pipeline, or of anything that has modules for attributes."""
    parts = getattr(pipe, "components", None)
    values = (parts if isinstance(parts, dict) else vars(pipe)).values()
    return list({id(value): value for value in values if isinstance(value, nn.Module)}.values())


@contextmanager
def listening(target: Any, listeners: dict[str, Listener]) -> Iterator[None]:
    """While the context is open, this thread's calls of ``target.<name>`` go to ``listeners[name]``."""
    key = threading.get_ident(), id(target)
    outer = _listeners.get(key)
    try:
        _put(target, _listeners, key, listeners)
        yield
    finally:
        _put(target, _listeners, key, outer)


def check_thread(scheduler: Any) -> None:
    """Raise ``ValueError`` if another thread samples with this scheduler."""
    if _is_patched(type(scheduler)) and (threading.get_ident(), id(scheduler)) not in _listeners:
        raise ValueError(
            "Selective Sigma is sampling with this scheduler in another thread: give each pipe a scheduler of its own"
        )


def set_listener(pipe: Any, listener: Listener | None) -> None:
    """Let ``listener`` answer ``pipe(...)`` in every thread. None removes the listener and the subclass."""
    _put(pipe, vars(pipe), _LISTENER_ATTRIBUTE, listener)


def has_listener(pipe: Any) -> bool:
    return _LISTENER_ATTRIBUTE in vars(pipe)


def class_of(module: Any) -> type:
    """The class of a module, without our subclass and without the wrapper of ``torch.compile``."""
    kind = type(getattr(module, "_orig_mod", module))
    return kind.__mro__[1] if _is_patched(kind) else kind


def _put(target: Any, table: dict[Any, Any], key: Any, value: Any) -> None:
    """Set ``table[key]``, or remove it (None). Then give ``target`` the subclass if it has listeners, else its own."""
    with _lock:
        table.pop(key, None)
        if value is not None:
            table[key] = value
        kind = type(target)
        has_listeners = _LISTENER_ATTRIBUTE in vars(target) or any(each == id(target) for _, each in _listeners)
        if has_listeners != _is_patched(kind):
            # Not setattr(): a compiled module passes that on to the module within.
            object.__setattr__(target, "__class__", _patched_class(kind) if has_listeners else kind.__mro__[1])


def _listener(target: Any, method: str) -> Listener | None:
    """This thread's listener for a method of ``target``, or None."""
    return _listeners.get((threading.get_ident(), id(target)), {}).get(method)


def _is_patched(kind: type) -> bool:
    return "_selective_sigma" in vars(kind)


@functools.cache
def _patched_class(kind: Any) -> Any:
    """A subclass of ``kind`` whose methods ask a listener. It is cached, since torch.compile guards on classes."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        listener = _listener(self, "__call__") or vars(self).get(_LISTENER_ATTRIBUTE)
        plain_call = functools.partial(kind.__call__, self)
        return plain_call(*args, **kwargs) if listener is None else listener(self, plain_call, args, kwargs)

    def getattribute(self: Any, name: str) -> Any:
        value = kind.__getattribute__(self, name)
        listener = _listener(self, name)
        if listener is None:
            return value
        return functools.wraps(value)(lambda *args, **kwargs: listener(self, value, args, kwargs))

    def reduce(self: Any, protocol: Any) -> Any:
        # Copies have the original class, and no listener.
        function, arguments, *rest = kind.__reduce_ex__(self, protocol)
        if rest and isinstance(rest[0], dict):
            rest[0] = {name: value for name, value in rest[0].items() if name != _LISTENER_ATTRIBUTE}
        return (function, tuple(kind if a is type(self) else a for a in arguments), *rest)

    namespace = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    namespace |= {"__reduce_ex__": reduce, "_selective_sigma": True}
    metaclass = type(kind)
    if any("__call__" in vars(base) for base in kind.__mro__):
        namespace["__call__"] = functools.wraps(kind.__call__)(call)
    else:
        namespace["__getattribute__"] = getattribute
        # Pipelines compare type(scheduler) with == and !=.
        equal = {"__eq__": lambda cls, other: other is cls or other is kind, "__hash__": lambda _: hash(kind)}
        metaclass = type(metaclass.__name__, (metaclass,), equal)
    return metaclass(kind.__name__, (kind,), namespace)


WANTED = "diffusers>=0.42,<0.43"
"""Tested releases, as in pyproject.toml. There is a cap since we read private attributes of diffusers' caches."""


def check_version(version: str) -> None:
    """Refuse a release of diffusers that is too old, and warn of one that is not tested yet.

    Raises:
        ImportError: in one line, with the releases that are wanted.
    """
    oldest, untested = WANTED.removeprefix("diffusers").split(",")
    if not SpecifierSet(oldest).contains(version, prereleases=True):
        raise ImportError(f"Selective Sigma needs {WANTED}, and {version} is installed: pip install '{WANTED}'")
    if not SpecifierSet(untested).contains(version, prereleases=True):
        warnings.warn(f"Selective Sigma is tested with {WANTED}, and {version} is installed", stacklevel=3)


FIRST_BLOCK_CACHE_HOOKS = ("FBCHeadBlockHook", "FBCBlockHook")
"""Hooks of First Block Cache. All their state is kept under the name of the cache context."""
ACCELERATORS = {
    "DeepCache": "DeepCache",
    "tgate": "T-GATE",
    "cache_dit.caching.cache_": "cache-dit",
    "para_attn": "ParaAttention",
}
"""Packages whose additions to a model count its calls or look up their time: start of the module name, and title."""


def caches(module: nn.Module) -> list[Any]:
    """The state managers of the caches on a model.

    Raises:
        ValueError: for caches and accelerators that count model calls (PAB, FasterCache, MagCache, TaylorSeer and
            others) or look up their time, since the lied call is one more call, at another time; for a First Block
            Cache whose attributes are not those of the tested releases.
    """
    managers: dict[int, Any] = {}
    for part in module.modules():
        origins = (type(part).__module__, *_replacements(part))
        for name in (name for start, name in ACCELERATORS.items() if any(o.startswith(start) for o in origins)):
            raise ValueError(
                f"{name} on {type(module).__name__} counts model calls or looks up their time, "
                "which the lied pass would upset: take it off first, or use FirstBlockCacheConfig"
            )
        for hook in getattr(getattr(part, "_diffusers_hook", None), "hooks", {}).values():
            if type(hook).__name__ in FIRST_BLOCK_CACHE_HOOKS:
                states = [value for value in vars(hook).values() if hasattr(value, "_context")]
                if not states:
                    raise ValueError(
                        f"{type(hook).__name__} keeps its state elsewhere than in {WANTED}, "
                        f"and {diffusers.__version__} is installed: call disable_cache() first"
                    )
                managers.update((id(state), state) for state in states)
            elif getattr(hook, "_is_stateful", True):
                raise ValueError(
                    f"{type(hook).__name__} keeps state between model calls, which the lied pass would upset: "
                    "call disable_cache() first, or use FirstBlockCacheConfig"
                )
    return list(managers.values())


def _replacements(part: nn.Module) -> list[str]:
    """Where the attention processor and a replaced ``forward`` of a part come from: module and class."""
    values = [value for name in ("processor", "forward") if (value := vars(part).get(name)) is not None]
    return [f"{value.__module__}.{type(value).__name__}" for value in values]


class ModelState:
    """Restores what the first of two calls changes in a pipeline's models during one run.

    It also knows whether the models can be called with a part of the rows (``sliceable``).
    """

    def __init__(self) -> None:
        self._watched: dict[int, nn.Module] = {}
        self._managers: list[Any] = []
        """State managers of First Block Cache."""
        self._owners: list[dict[str, Any]] = []
        """The ``__dict__`` of each module and of each attention processor."""
        self._sliceable = True
        self.needs_all_rows = False
        """Whether the model has failed on a part of the rows."""

    def watch(self, module: nn.Module) -> None:
        """Add a model whose state is to be restored.

        Raises:
            ValueError: the module has a cache or an accelerator that is refused (see ``caches``).
        """
        if id(module) in self._watched:
            return
        self._managers += caches(module)
        self._watched[id(module)] = module
        for part in module.modules():
            self._owners += [vars(part), getattr(vars(part).get("processor"), "__dict__", {})]
            # A forward or a processor that is not diffusers' own may rely on the number of copies. PAG's do.
            for origin in _replacements(part):
                self._sliceable &= origin.startswith(("diffusers.", "accelerate.", "torch.")) and "PAG" not in origin

    def sliceable(self, copies: int) -> bool:
        """Whether the model can be called with only one of the ``copies`` of the sample."""
        return copies == 2 and self._sliceable and not self.needs_all_rows

    @contextmanager
    def restored(self, is_first_of_two: bool) -> Iterator[None]:
        """Undo, at the end of the block, what the first of two calls changed. Other calls are left alone.

        - The global random generators of Python, numpy and torch (CPU, and the model's first CUDA device) are restored.
        - Plain numbers in modules and in attention processors are restored.
        - First Block Cache keeps this call in a state of its own.
        """
        if not is_first_of_two:
            yield
            return
        parameters = (p for part in self._watched.values() for p in part.parameters() if p.device.type == "cuda")
        with ExitStack() as stack:
            for owner in self._owners:
                numbers = {name: value for name, value in owner.items() if type(value) in (bool, int, float)}
                stack.callback(owner.update, numbers)
            stack.callback(random.setstate, random.getstate())
            stack.callback(np.random.set_state, np.random.get_state())
            stack.enter_context(torch.random.fork_rng([p.device for p in islice(parameters, 1)]))
            for manager in self._managers:
                context = manager._context
                if context is not None:
                    manager.set_context(replace(context, name=f"{context.name} lied"))
                    stack.callback(manager.set_context, context)
            yield
