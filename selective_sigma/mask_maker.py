"""The masks of one run: constant, response or published, limited by the maps that a user passes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .mask import check_fits, checked_map, resample, response
from .prediction import Latent, Prediction, map_streams, streams
from .published import PublishedMask

if TYPE_CHECKING:
    from .settings import Settings


class MaskMaker:
    """Makes the mask of each step of one run. Only a published mask depends on earlier steps.

    Args:
        limit, within: see ``Detailer``. In a model of several streams they apply to the first one.
    """

    def __init__(self, settings: Settings, limit: Tensor | None = None, within: Tensor | None = None):
        self._settings = settings
        self._maps = {"limit": checked_map("limit", limit), "within": checked_map("within", within)}
        maps = [values for values in self._maps.values() if values is not None]
        self._has_black_map = settings.mask_override == "off" and not all(values.any() for values in maps)
        self._published: list[PublishedMask] = []
        self._is_published = settings.mask_source != "response" and settings.constant_mask is None

    @property
    def is_response(self) -> bool:
        """Whether the mask is a response mask, made from both predictions of the step."""
        return self._settings.constant_mask is None and not self._is_published

    def check_fits(self, x: Tensor) -> None:
        """Raise ``ValueError`` unless both maps fit a latent of this shape, after resizing."""
        for name, values in self._maps.items():
            if values is not None:
                check_fits(name, values, x.shape)

    def is_black(self, x: Latent) -> bool:
        """Whether a map is zero everywhere, which leaves no place for detail. False if there are several streams."""
        return self._has_black_map and len(streams(x)) == 1

    def ready(self, x: Latent) -> bool:
        """Whether a mask can be made at this step. ``change`` needs the prediction of an earlier step."""
        if not self._is_published:
            return True
        if not self._published:
            maps = [self._maps["within"], *[None] * (len(streams(x)) - 1)]
            self._published = [PublishedMask(self._settings, within) for within in maps]
        return all(published.ready(len(streams(x)[0])) for published in self._published)

    def remember(self, plain: Prediction, x: Latent) -> None:
        """Store a plain prediction, with which a published mask compares the next one."""
        self._published_masks(plain, x)

    def make(self, plain: Prediction, lied: Prediction, x: Latent, dose: float) -> Latent:
        """The mask of a step, (batch, 1, *space), float32, or one per stream.

        Args:
            plain, lied: the predictions of the step at the noisy latent ``x``.
            dose: size of the lie in e-folds, -ln(1 - strength).
        """
        constant = self._settings.constant_mask
        if constant is not None:
            masks = [ones(stream) * constant for stream in streams(plain.denoised)]
        elif self._is_published:
            masks = self._published_masks(plain, x)
        else:
            coverage, within = self._settings.coverage, self._maps["within"]
            masks: list[Tensor] = []
            predictions = zip(streams(plain.denoised), streams(lied.denoised), _guided(plain), strict=True)
            for plain_stream, lied_stream, guided_stream in predictions:
                stream_predictions = plain_stream.detach(), lied_stream.detach()
                masks.append(response(*stream_predictions, coverage, dose, within, guided_stream.detach()))
                within = None
        limit = self._maps["limit"]
        if limit is not None and self._settings.mask_override == "off":
            masks[0] = masks[0] * resample(limit.to(masks[0]), masks[0].shape[2:])
        return masks[0] if isinstance(plain.denoised, Tensor) else masks

    def only_finite(self, mask: Latent, is_finite: Tensor) -> Latent:
        """``mask`` with zeros in samples that are not ``is_finite`` (batch,); unchanged under ``mask_override``."""
        return mask if self._settings.mask_override != "off" else map_streams(partial(_zero_unless, is_finite), mask)

    def _published_masks(self, plain: Prediction, x: Latent) -> list[Tensor]:
        masks = zip(self._published, _guided(plain), streams(x), strict=True)
        return [published.make(guided_stream, x_stream) for published, guided_stream, x_stream in masks]


def ones(like: Tensor) -> Tensor:
    """A mask of ones for a latent, (batch, 1, *space), float32."""
    return like.new_ones((len(like), 1, *like.shape[2:]), dtype=torch.float32)


def _guided(plain: Prediction) -> list[Tensor]:
    """The picture that detail is added to, one tensor per stream."""
    return streams(plain.denoised if plain.guided is None else plain.guided)


def _zero_unless(is_finite: Tensor, mask: Tensor) -> Tensor:
    return torch.where(is_finite.reshape(-1, *[1] * (mask.ndim - 1)), mask, 0.0)
