"""Putting the detailer between a pipeline and its denoiser, and taking it away again."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

NAME = "selective_sigma"


class Call:
    """One call of a denoiser, to be made again with another input or timestep.

    ``sample`` is the model's input, ``timestep`` what the pipeline gave with it, as a tensor.
    """

    def __init__(self, module: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]):
        self.module = module
        self._forward = forward
        self._args = args
        self._kwargs = kwargs
        # torch.compile's wrapper has no signature of its own.
        plain = getattr(module, "_orig_mod", module)
        self._names = list(inspect.signature(type(plain).forward).parameters)[1:]
        self._sample = next((n for n in ("sample", "hidden_states") if self.get(n) is not None), "")
        if not isinstance(self.get(self._sample), Tensor) or self.get("timestep") is None:
            raise ValueError(
                f"{type(plain).__name__} is not called with a tensor named sample or hidden_states and a timestep: "
                "this pipeline is not supported"
            )
        self.sample: Tensor = self.get(self._sample)
        self.timestep: Tensor = torch.as_tensor(self.get("timestep"))

    def get(self, name: str) -> Any:
        """An argument of the call by name, None where it is not given."""
        if name in self._kwargs:
            return self._kwargs[name]
        index = self._names.index(name) if name in self._names else len(self._args)
        return self._args[index] if index < len(self._args) else None

    def __call__(self, sample: Tensor | None = None, timestep: Tensor | None = None) -> Any:
        """Call the model, as the pipeline did where nothing is given."""
        args, kwargs = list(self._args), dict(self._kwargs)
        for name, value in ((self._sample, sample), ("timestep", timestep)):
            if value is None:
                continue
            if name in kwargs:
                kwargs[name] = value
            else:
                args[self._names.index(name)] = value
        return self._forward(*args, **kwargs)


class DetailHook(ModelHook):
    """diffusers' hook on a denoiser; remembers how the module was before it."""

    def __init__(self, step: Callable[[Call], Any]):
        super().__init__()
        self._step = step

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return self._step(Call(module, self.fn_ref.original_forward, args, kwargs))


def installed(module: nn.Module) -> bool:
    """Whether a hook of ours is on the module."""
    return NAME in getattr(getattr(module, "_diffusers_hook", None), "hooks", {})


def install(module: nn.Module, step: Callable[[Call], Any]) -> None:
    """Have ``step`` answer every call of the module."""
    HookRegistry.check_if_exists_or_initialize(module).register_hook(DetailHook(step), NAME)


def remove(module: nn.Module) -> None:
    """Leave the module as it was, also between other hooks; nothing where there is none of ours."""
    if not installed(module):
        return
    registry = module._diffusers_hook
    after = registry._fn_refs[registry._hook_order.index(NAME) + 1 :][:1]
    forwards = [ref.forward for ref in after]
    registry.remove_hook(NAME, recurse=False)
    for ref, forward in zip(after, forwards, strict=True):
        # diffusers 0.42 replaces the next hook's own forward with what it should call.
        if ref.original_forward is not None:
            ref.forward, ref.original_forward = forward, ref.forward
    if not registry.hooks:
        del module._diffusers_hook
        if getattr(module.forward, "__func__", None) is type(module).forward:
            del module.forward
