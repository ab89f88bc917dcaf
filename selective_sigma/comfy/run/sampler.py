"""A SAMPLER that adds detail."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

from .sampler_run import MARK, TWICE, RunOptions, SamplerRun

if TYPE_CHECKING:
    from torch import Tensor

    from ...settings import Settings


def wrap(sampler: Any, settings: Settings, **options: Any) -> Any:
    """A copy of a SAMPLER that adds detail; the same object where the settings do nothing.

    Args:
        sampler: a ``KSAMPLER`` or a subclass. Its options are kept.
        options: ``capture``, ``limit`` and ``around_callback``, as in ``RunOptions``.

    Raises:
        TypeError: the sampler has no ``sampler_function``.
        ValueError: it is wrapped already.
    """
    if settings.idle:
        return sampler
    function = getattr(sampler, "sampler_function", None)
    if not callable(function):
        kind: type[Any] = type(sampler)
        raise TypeError(
            f"{kind.__module__}.{kind.__qualname__} has no sampler_function to wrap: "
            "use the Selective Sigma Detailer (Model) node on its MODEL instead"
        )
    if hasattr(function, MARK):
        raise ValueError(TWICE)
    wrapped = copy.copy(sampler)
    wrapped.sampler_function = DetailSamplerFunction(function, RunOptions(settings, **options))
    return wrapped


class DetailSamplerFunction:
    """A sampler function that adds detail, with the name and the signature of the wrapped one.

    A class and not a closure, so that it can be pickled if the wrapped function can.
    """

    def __init__(self, function: Any, options: RunOptions):
        functools.update_wrapper(self, function)
        self._function = function
        self._options = options
        setattr(self, MARK, True)

    def __call__(
        self,
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Any = None,
        callback: Any = None,
        disable: Any = None,
        **more: Any,
    ) -> Any:
        extra_args = {} if extra_args is None else extra_args
        name = getattr(self._function, "__name__", "sampler").removeprefix("sample_")
        run = SamplerRun(self._options, name, model, model.inner_model, x, sigmas, extra_args)
        extra_args, callback = run.wrapped_extra_args(extra_args), run.wrapped_callback(callback)
        result = self._function(
            ModelStandIn(run), x, sigmas, extra_args=extra_args, callback=callback, disable=disable, **more
        )
        run.end(result, sigmas)
        return result


class ModelStandIn:
    """Takes the place of the model that a sampler calls.

    Calls are steps of the run. Attributes are those of the model. A copy belongs to the same run.
    """

    __slots__ = (MARK,)

    def __init__(self, run: SamplerRun):
        object.__setattr__(self, MARK, run)

    def __call__(self, x: Tensor, sigma: Tensor, *args: Any, **named: Any) -> Tensor:
        run: SamplerRun = getattr(self, MARK)
        return run.step(x, sigma, {**dict(zip(run.argument_names, args, strict=False)), **named})

    def __getattr__(self, name: str) -> Any:
        if name == MARK:  # A copy asks before its slot is set.
            raise AttributeError(name)
        return getattr(getattr(self, MARK).inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == MARK:  # A copy sets its slot.
            object.__setattr__(self, name, value)
            return
        setattr(getattr(self, MARK).inner, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(getattr(self, MARK).inner, name)
