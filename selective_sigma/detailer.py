"""THE STEP: one run of a sampler with the lie told where the mask says so."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .held import Correction, Held
from .lie import Told, noise_to_signal, per_sample, tell
from .mask import Mask, check_map
from .prediction import Evaluate, Prediction
from .report import Report
from .schedule import Schedule, flat
from .settings import Family, Settings, check_sigmas
from .streams import Streams

__all__ = ["Detailer", "Evaluate", "Prediction"]


class Detailer:
    """Adds detail to one run; owns all its state, so that two runs never meet.

    >>> detailer = Detailer(Settings(strength=0.1), sigmas)
    >>> prediction = detailer.step(evaluate, x, sigma)     # in place of evaluate(x, sigma)

    ``report`` counts what was done; ``mask`` is the latest mask, (batch, 1, *space) float32, or
    None before the first; ``masks`` holds (sigma, mask) of every step when recording.
    """

    def __init__(
        self,
        settings: Settings,
        sigmas: Sequence[float] | Tensor,
        family: Family = "ve",
        *,
        limit: Tensor | None = None,
        within: Tensor | None = None,
        shapes: Sequence[Sequence[int]] | None = None,
        weights: Sequence[float] | None = None,
        record: bool = False,
    ):
        """Args:
            sigmas: the run's noise levels, descending, one more than there are steps; an
                ascending run (unsampling) is left plain.
            family: ``ve`` for x = x0 + sigma n, ``flow`` for x = (1 - sigma) x0 + sigma n.
            limit: (batch or 1, 1, *space) in [0, 1], multiplies the mask: where detail may go.
            within: (batch or 1, 1, *space) in [0, 1], the part that inpainting regenerates; the
                mask is normalised over it alone. Both are resized to the latent; of packed
                latents they concern the first.
            shapes: (batch, channels, *space) of several latents packed into one (batch, 1, N),
                each with its own mask.
            weights: one weight per step in place of the flat schedule, for comparisons.
            record: keep the mask of every step in ``masks``.

        Raises:
            ValueError: for a bad value of any of these, naming it.
        """
        levels = _floats(torch.as_tensor(sigmas))
        check_sigmas(levels)
        if weights is None:
            weights = flat(max(len(levels) - 1, 0), settings.start, settings.end)
        if family not in ("ve", "flow"):
            raise ValueError(f"family is {family!r}: choose ve or flow")
        for name, values in (("limit", limit), ("within", within)):
            if values is not None:
                check_map(name, values)
        self.settings = settings
        self.family: Family = family
        self.report = Report()
        self.mask: Tensor | None = None
        self.masks: list[tuple[float, Tensor]] = []
        self._schedule = Schedule(levels, list(weights))
        self._streams = Streams(shapes)
        self._parts = [Mask(settings, within, limit)]
        self._parts += [Mask(settings) for _ in range(1, len(self._streams))]
        self._one_pass = settings.coverage >= 1 and settings.mask_override == "off" and limit is None
        economy = settings.passes == "economy" and settings.mask_override == "off"
        self._held = Held(settings.refresh) if economy else None
        self._record = record
        self._seen: list[float | None] = []

    def step(self, evaluate: Evaluate, x: Tensor, sigma: Tensor) -> Prediction:
        """One prediction, with detail where the mask says so.

        Args:
            evaluate: the model; called once or twice.
            x: noisy latent (batch, channels, *space), one to three space axes.
            sigma: its noise level, one per sample or one for all (0-d too).

        Returns:
            The very tensors of ``evaluate(x, sigma)`` where there is nothing to do.

        Raises:
            TypeError, ValueError: before any model call, for latents or a sigma that cannot be.
        """
        levels = self._check(x, sigma)
        self.report.steps += 1
        strengths = [self.settings.strength * self._schedule.at(level) for level in levels]
        if self.settings.idle or not any(strengths):
            covered = any(map(self._schedule.covers, levels))
            self.report.skip("idle" if self.settings.idle else "schedule" if covered else "range")
            return self._plain(evaluate, x, sigma)
        if self._one_pass:
            strength = torch.tensor(strengths, dtype=torch.float32, device=x.device)
            ones = x.new_ones((len(x), 1, *x.shape[2:]), dtype=torch.float32)
            self._show(ones * per_sample(strength != 0, x), levels)
            self.report.lied += 1
            return self._call(evaluate, *self._tell(x, sigma, strength))[0]
        return self._detail(evaluate, x, sigma, levels, strengths)

    def _plain(self, evaluate: Evaluate, x: Tensor, sigma: Tensor) -> Prediction:
        self.report.true += 1
        true, _ = self._call(evaluate, x, sigma)
        for part, view in zip(self._parts, self._streams.split(true.denoised), strict=True):
            part.observe(view)
        return true

    def _detail(
        self, evaluate: Evaluate, x: Tensor, sigma: Tensor, levels: list[float], strengths: list[float]
    ) -> Prediction:
        """The true pass, the mask, then the lied pass, only where the mask has something to give.

        Samples whose effect is held have one call at the mean lie instead, and the held effect
        corrects the mask's deviation from that mean: what is stale in it then costs |m - c| and
        not m (method.md section 4). Each way acts on its own samples, with weight 0 on the rest.
        """
        held, active = self._held, [s != 0 for s in strengths]
        ratios = [noise_to_signal(level, self.family) for level in levels]
        served = [False] * len(x) if held is None else held.serves(x, self.mask, ratios, strengths)
        measured = [yes and not serves for yes, serves in zip(active, served, strict=True)]
        decays = self._decays(ratios, active)
        # All that goes to the device goes before the model call, where nobody waits for it.
        strength, decay, serve = torch.tensor([strengths, decays, served], dtype=torch.float32, device=x.device)
        correct: Correction | None = None
        if held is not None and held.effect is not None and self.mask is not None and any(served):
            self.report.held += 1
            mean = held.mean(self.mask) * serve
            correct = Correction(held.effect, mean, held.grown(strength) * serve)
            call, sound = self._call(evaluate, *self._tell(x, sigma, mean * strength))
            true = correct.true(call.denoised.detach())
        else:
            self.report.true += 1
            call, sound = self._call(evaluate, x, sigma)
            true = call.denoised.detach()
        mask, lit = self._mask(true, x, decay, strength, sound)
        if mask is None or lit is None:
            self.report.skip("first")
            return call
        self._seen = [now if yes else then for now, yes, then in zip(ratios, active, self._seen, strict=True)]
        self._show(mask, levels)
        result = call
        if any(measured):
            # One question to the device for each model call: sigma before the first, and here,
            # where the answer can save the second.
            measured = [yes and bool(worth) for yes, worth in zip(measured, lit.cpu(), strict=True)]
        if any(measured):
            self.report.lied += 1
            lied, lied_sound = self._call(evaluate, *self._tell(x, sigma, strength))
            both = sound & lied_sound
            result = _blend(call, lied, mask * per_sample(both * (1.0 - serve), x))
            if held is not None:
                held.store(call, lied, both, strength, measured, ratios, strengths, served)
        elif correct is None:
            self.report.skip("empty")
        return result if correct is None else correct.apply(result, mask, sound)

    def _check(self, x: Tensor, sigma: Tensor) -> list[float]:
        """The noise level of each sample, after checking what a host handed over."""
        if not x.is_floating_point():
            raise TypeError(f"x is {x.dtype}: latents are floating point; convert them first")
        if not 3 <= x.ndim <= 5:
            raise ValueError(
                f"x has shape {tuple(x.shape)}: give (batch, channels, *space) with one to three space axes"
            )
        if sigma.numel() not in (1, len(x)):
            raise ValueError(f"sigma has {sigma.numel()} values for a batch of {len(x)}: give one, or one per sample")
        levels = _floats(sigma)
        check_sigmas(levels, "sigma")
        self._streams.check(x)
        self._parts[0].check(self._streams.split(x)[0])
        if len(self._seen) != len(x):
            # Another batch than before; nothing remembered tells of these samples.
            self._seen = [None] * len(x)
            for part in self._parts:
                part.forget()
            if self._held is not None:
                self._held = Held(self.settings.refresh)
        return levels if len(levels) == len(x) else levels * len(x)

    def _decays(self, ratios: list[float], active: list[bool]) -> list[float]:
        """Weight of the remembered mask: all of it in samples that are not detailed at this step."""
        return [
            1.0 if not yes else 0.0 if then is None else self._parts[0].decay(abs(math.log(then / now)))
            for then, now, yes in zip(self._seen, ratios, active, strict=True)
        ]

    def _call(self, evaluate: Evaluate, x: Tensor, sigma: Tensor) -> tuple[Prediction, Tensor]:
        prediction = evaluate(x, sigma)
        sound = prediction.sound()
        self.report.count_unsound(sound)
        return prediction, sound

    def _tell(self, x: Tensor, sigma: Tensor, strength: Tensor) -> Told:
        each = sigma.to(x.device).reshape(-1).expand(len(x))
        return tell(x, each, strength, self.family, self.settings.lie)

    def _mask(
        self, denoised: Tensor, x: Tensor, decay: Tensor, strength: Tensor, sound: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """The mask, zero in samples it does not light, and which it does; None before a first."""
        views = zip(self._parts, self._streams.split(denoised), self._streams.split(x), strict=True)
        masks = [part.make(view, seen, decay) for part, view, seen in views]
        made = [m for m in masks if m is not None]
        if len(made) < len(masks):
            return None, None
        lit = self._parts[0].lights(made, sound) & (strength != 0)
        return self._streams.join(made) * per_sample(lit, x), lit

    def _show(self, mask: Tensor, levels: list[float]) -> None:
        self.mask = mask
        if self._record:
            self.masks.append((levels[0], mask))


def _blend(true: Prediction, lied: Prediction, mask: Tensor) -> Prediction:
    """n (1 - m) + l m: exact at both ends, which lerp is not; in float32, rounded once."""
    rest = 1.0 - mask

    def blend(n: Tensor, d: Tensor) -> Tensor:
        # Samples that are not sound have mask 0 and stay as they are: no NaN from 0 * NaN.
        return (d * mask).nan_to_num_(0.0, 0.0, 0.0).addcmul_(n, rest).to(n.dtype)

    return true.join(blend, lied)


def _floats(values: Tensor) -> list[float]:
    """Values as floats, in one transfer from the device."""
    return [float(v) for v in values.detach().reshape(-1).cpu()]
