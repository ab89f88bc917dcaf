"""What goes in and out of a pipeline's model in a run with detail, on both sides of the adapter."""

from __future__ import annotations

from typing import Any

import torch

from selective_sigma.diffusers.run import StepTracker


class WrongError(AssertionError):
    """A pipeline was accepted, and its result is not right."""


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    """Everything in nested containers, by path."""
    if isinstance(tree, dict):
        pairs = list(tree.items())
    elif isinstance(tree, (list, tuple)):
        pairs = list(enumerate(tree))
    else:
        return {path: tree}
    return {k: v for key, value in pairs for k, v in leaves(value, (*path, key)).items()}


class Watch:
    """Keeps the calls of the denoiser (``inside``), and the answers that the pipeline gets (``outside``)."""

    def __init__(self, pipe: Any):
        self.inside: list[tuple[Any, Any, Any]] = []
        self.outside: list[Any] = []
        self._pipe = pipe

    def __enter__(self) -> Watch:
        self._called = StepTracker.called
        modules = [m for m in self._pipe.components.values() if isinstance(m, torch.nn.Module)]
        hooks = [m.register_forward_hook(self._inside, with_kwargs=True) for m in modules]
        self._remove = [hook.remove for hook in hooks]
        watch = self

        def called(run: Any, module: Any, call: Any, args: Any, kwargs: Any) -> Any:
            before = len(watch.inside)
            answer = watch._called(run, module, call, args, kwargs)
            mine = [i for i in range(before, len(watch.inside)) if watch.inside[i][0] is module]
            watch.outside.append((mine, answer))
            return answer

        StepTracker.called = called
        return self

    def __exit__(self, *_: object) -> None:
        StepTracker.called = self._called
        for remove in self._remove:
            remove()

    def _inside(self, module: Any, args: Any, kwargs: Any, answer: Any) -> None:
        kept = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in leaves((args, kwargs)).items()}
        self.inside.append((module, kept, {k: v for k, v in leaves(answer).items() if isinstance(v, torch.Tensor)}))

    @property
    def pairs(self) -> list[tuple[Any, Any, Any]]:
        """(lied call, plain call, answer handed on) of each step that was asked twice."""
        return [(self.inside[mine[0]], self.inside[mine[-1]], a) for mine, a in self.outside if len(mine) == 2]
