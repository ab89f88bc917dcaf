"""What a host hands the core: the model's prediction, and the function that makes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor


class Prediction(NamedTuple):
    """What the model says of one latent.

    ``denoised`` is the prediction of the clean latent, (batch, channels, *space); ``alike`` holds
    whatever else of its shape the host needs blended with the same mask (uncond, cond, the raw
    output), the same number of tensors at every call. They are kept by reference until the next
    step: do not write into them.
    """

    denoised: Tensor
    alike: tuple[Tensor, ...] = ()

    def join(self, combine: Callable[..., Tensor], *others: Prediction) -> Prediction:
        """Combine predictions tensor by tensor; ``ValueError`` where they hold different numbers."""
        denoised = combine(self.denoised, *(o.denoised for o in others))
        rows = zip(self.alike, *(o.alike for o in others), strict=True)
        return Prediction(denoised, tuple(combine(*row) for row in rows))

    def sound(self) -> Tensor:
        """(batch,) bool: samples without NaN or inf."""
        # One sum for each sample: several times faster than isfinite() on all of it. In float32,
        # as half precision would overflow.
        sums = [t.detach().flatten(1).sum(1, dtype=torch.float32) for t in (self.denoised, *self.alike)]
        return finite(sums[0] if len(sums) == 1 else torch.stack(sums).sum(0))


def finite(sums: Tensor) -> Tensor:
    """Whether each number is neither NaN nor inf; in two operations, where isfinite() takes six."""
    return sums.abs() < torch.inf


Evaluate: TypeAlias = Callable[[Tensor, Tensor], Prediction]
"""``evaluate(x, sigma)``: latent (batch, channels, *space) and sigma to a prediction.

A plain call passes on the very tensors the sampler gave; a lied one gives sigma as (batch,).
"""
