"""HOW: combines the two predictions of a step under its mask (method.md section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from .prediction import Latent, Output, Prediction, map_streams


def add_effect(
    plain: Prediction, lied: Prediction | None, mask: Latent, index: int, effect: Latent | None = None
) -> Output:
    """Add one effect, ``mask * (lied.denoised - plain.denoised)``, to every prediction of a step.

    ``others`` that the lied call predicts too are blended with their own lied predictions instead.

    Args:
        lied: the lied prediction; None if ``effect`` is passed.
        effect: the effect of an earlier call of the step. It is then added instead.

    Raises:
        ValueError: if the lied call predicts an ``other`` that the plain call does not.
    """
    if effect is None:
        assert lied is not None
        effect = map_streams(_effect, plain.denoised, lied.denoised, mask)
    others = {name: map_streams(_add, value, effect) for name, value in plain.others.items()}
    if lied is not None:
        _check_names(set(lied.others) - set(plain.others))
        others |= {name: map_streams(_blend, plain.others[name], value, mask) for name, value in lied.others.items()}
    guided = None if plain.guided is None else map_streams(_add, plain.guided, effect)
    denoised = map_streams(_add, plain.denoised, effect)
    return Output(denoised, others, guided, kind="blended", index=index, mask=mask, effect=effect)


def blend(plain: Prediction, lied: Prediction, mask: Latent, index: int) -> Output:
    """Blend each prediction of a step with its own lied one.

    Raises:
        ValueError: if the two calls name different ``others``.
    """
    _check_names(set(plain.others) ^ set(lied.others))
    others = {name: map_streams(_blend, value, lied.others[name], mask) for name, value in plain.others.items()}
    guided = None
    if plain.guided is not None and lied.guided is not None:
        guided = map_streams(_blend, plain.guided, lied.guided, mask)
    denoised = map_streams(_blend, plain.denoised, lied.denoised, mask)
    return Output(denoised, others, guided, kind="blended", index=index, mask=mask)


def _check_names(names: set[str]) -> None:
    """Raise ``ValueError`` if there are any ``names``, which only one of the two calls of a step returned."""
    if names:
        listed = ", ".join(sorted(names))
        raise ValueError(f"evaluate returned {listed} in one call of a step alone: name the same others in both")


def _effect(plain: Tensor, lied: Tensor, mask: Tensor) -> Tensor:
    """``mask * (lied - plain)`` in at least float32; zero where the product is not finite."""
    return (lied.to(torch.promote_types(lied.dtype, mask.dtype)) - plain).mul_(mask).nan_to_num_(0.0, 0.0, 0.0)


def _add(prediction: Tensor, effect: Tensor) -> Tensor:
    """``prediction + effect``, rounded once; bit-equal to the prediction where the effect is zero."""
    return (prediction + effect).to(prediction.dtype)


def _blend(plain: Tensor, lied: Tensor, mask: Tensor) -> Tensor:
    """``plain * (1 - mask) + lied * mask``, rounded once.

    Unlike ``lerp`` it is bit-equal to either tensor where the mask is 0 or 1, also where the other one is NaN.
    """
    mixture = (lied * mask).addcmul_(plain, 1.0 - mask).to(plain.dtype)
    return torch.where(mask <= 0, plain, torch.where(mask >= 1, lied, mixture))
