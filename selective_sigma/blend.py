"""HOW: the two predictions of a step put together under its mask (method.md section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from .prediction import Latent, Output, Prediction, each


def moved(plain: Prediction, lied: Prediction | None, mask: Latent, index: int, effect: Latent | None = None) -> Output:
    """Every prediction of a step with one effect added, ``m (lied - plain)`` of ``denoised`` unless it is given.

    One of the ``others`` that the lied call predicts too is blended with its own lied prediction instead.
    """
    if effect is None:
        assert lied is not None
        effect = each(_effect, plain.denoised, lied.denoised, mask)
    others = {name: each(_add, value, effect) for name, value in plain.others.items()}
    if lied is not None:
        others |= {name: each(_blend, plain.others[name], value, mask) for name, value in lied.others.items()}
    guided = None if plain.guided is None else each(_add, plain.guided, effect)
    return Output(
        each(_add, plain.denoised, effect), others, guided, kind="blended", index=index, mask=mask, effect=effect
    )


def blended(plain: Prediction, lied: Prediction, mask: Latent, index: int) -> Output:
    """Each prediction of a step blended with its own lied one.

    Raises:
        ValueError: the two calls disagree on names.
    """
    if set(plain.others) != set(lied.others):
        names = ", ".join(sorted(set(plain.others) ^ set(lied.others)))
        raise ValueError(f"evaluate returned {names} in one call of a step alone: name the same others in both")
    others = {name: each(_blend, value, lied.others[name], mask) for name, value in plain.others.items()}
    guided = None
    if plain.guided is not None and lied.guided is not None:
        guided = each(_blend, plain.guided, lied.guided, mask)
    return Output(each(_blend, plain.denoised, lied.denoised, mask), others, guided, False, "blended", index, mask)


def ones(like: Tensor) -> Tensor:
    """A mask of ones, (batch, 1, *space), float32."""
    return like.new_ones((len(like), 1, *like.shape[2:]), dtype=torch.float32)


def usable(mask: Tensor, finite: Tensor) -> Tensor:
    """The mask, zero in samples of which a prediction is not ``finite``, (batch,) bool: they stay plain."""
    return torch.where(finite.reshape(-1, *[1] * (mask.ndim - 1)), mask, 0.0)


def _effect(plain: Tensor, lied: Tensor, mask: Tensor) -> Tensor:
    """m (lied - plain), at least float32; zero where the mask is, also where a prediction is not finite."""
    return (lied.to(torch.promote_types(lied.dtype, mask.dtype)) - plain).mul_(mask).nan_to_num_(0.0, 0.0, 0.0)


def _add(prediction: Tensor, effect: Tensor) -> Tensor:
    """The prediction moved by the effect, rounded once; where the effect is zero, exactly itself."""
    return (prediction + effect).to(prediction.dtype)


def _blend(plain: Tensor, lied: Tensor, mask: Tensor) -> Tensor:
    """n (1 - m) + l m: exact at both ends, which lerp is not, and there also for NaN; in float32, rounded once."""
    blend = (lied * mask).addcmul_(plain, 1.0 - mask).to(plain.dtype)
    return torch.where(mask <= 0, plain, torch.where(mask >= 1, lied, blend))
