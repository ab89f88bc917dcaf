"""How noisy the pipeline's latent is, read from the pipe's own scheduler."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..schedule import shares
from ..settings import Family

BY_SIGMA = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DPMSolverSDEScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
)
"""Hold the noise level of each step in ``sigmas``, variance exploding, or flow on request."""
BY_ALPHA = ("DDIMScheduler", "DDPMScheduler", "LCMScheduler", "TCDScheduler")
"""Look the noise level up in ``alphas_cumprod`` by timestep."""
FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
"""Hold ``sigmas`` of rectified flow."""
SUPPORTED = BY_SIGMA + BY_ALPHA + FLOW

# diffusers' own stand-in for a signal of exactly zero (rescale_betas_zero_snr).
_LEAST_ALPHA = 2.0**-24


class Kind(NamedTuple):
    """What a scheduler's noise levels mean and what its model predicts."""

    by_alpha: bool
    family: Family
    prediction: str


def check(scheduler: Any) -> Kind:
    """Read what a scheduler does; ``ValueError`` names the supported ones if it is none of them."""
    names = {cls.__name__ for cls in type(scheduler).__mro__}
    name = type(scheduler).__name__
    if not names & set(SUPPORTED):
        raise ValueError(f"{name} is not supported: set pipe.scheduler to one of {', '.join(SUPPORTED)}")
    config = scheduler.config
    if config.get("invert_sigmas") or config.get("timestep_type") == "continuous":
        raise ValueError(f"{name} with invert_sigmas or continuous timesteps is not supported: leave them off")
    if names & set(FLOW):
        return Kind(False, "flow", "flow_prediction")
    flow = bool(config.get("use_flow_sigmas"))
    prediction = str(config.get("prediction_type", "epsilon"))
    if prediction not in (("flow_prediction",) if flow else ("epsilon", "v_prediction", "sample")):
        raise ValueError(
            f"{name} has prediction_type {prediction!r} with use_flow_sigmas={flow}: "
            "give epsilon, v_prediction or sample without, flow_prediction with flow sigmas"
        )
    return Kind(bool(names & set(BY_ALPHA)), "flow" if flow else "ve", prediction)


class Levels:
    """The noise levels of one run, and where in it the pipeline is.

    A run begins with ``scheduler.set_timesteps``, which every pipeline calls once per run and
    which always makes a new ``timesteps`` tensor: that tensor's identity tells runs apart.
    """

    def __init__(self, scheduler: Any, given: Tensor):
        """``given``: the timestep that the pipeline hands its model on the run's first call."""
        self.kind = check(scheduler)
        self._scheduler = scheduler
        self._timesteps: Tensor = scheduler.timesteps
        if self.kind.by_alpha:
            alphas = scheduler.alphas_cumprod[self._timesteps.long().cpu()].float().clamp(min=_LEAST_ALPHA)
            levels = [*((1 - alphas) / alphas).sqrt().tolist(), 0.0]
        else:
            levels = scheduler.sigmas.float().tolist()
        self._levels: list[float] = levels
        self._table: Tensor | None = None
        if self.kind.family == "ve":
            alphas = scheduler.alphas_cumprod.double().clamp(min=_LEAST_ALPHA, max=1 - 1e-12)
            self._table = ((1 - alphas) / alphas).log() / 2
        self.index = self._find(given)
        self._check(given)
        run = levels[self.index :]
        # Second-order schedulers list a level once for each call; a step is a change of level.
        self.sigmas = [run[0]] + [now for then, now in pairwise(run) if now != then]

    def window(self, start: float, end: float) -> tuple[float, float]:
        """Noise levels at two shares of the model's own range, 0 pure noise and 1 none."""
        if self._table is None:
            # The scheduler's whole list holds the shift that its model wants.
            high, low = shares(self._levels, start, end)
        else:
            last = len(self._table) - 1
            high, low = (float(self._table[round((1 - share) * last)].exp()) for share in (start, end))
        return (math.inf if start == 0 else high), (0.0 if end == 1 else low)

    def over(self, scheduler: Any, given: Tensor) -> bool:
        """Whether a call belongs to another run than this one."""
        if scheduler is not self._scheduler or scheduler.timesteps is not self._timesteps:
            return True
        # Also for loops that go over the same timesteps again.
        return self._find(given) < self.index

    def move(self, given: Tensor) -> bool:
        """Go to where the pipeline is now; False if it has not moved since the last call."""
        before, self.index = self.index, self._find(given)
        return self.index != before

    @property
    def sigma(self) -> float:
        """Noise level of the latent now: VE sigma, or the flow's share of noise."""
        scheduler = self._scheduler
        # DPMSolverSDE's second call lies between two levels, known to itself alone.
        between = getattr(scheduler, "mid_point_sigma", None)
        if between is not None and not scheduler.state_in_first_order:
            return float(between)
        return self._levels[self.index]

    def timestep(self, given: Tensor, sigma: Tensor, told: Tensor) -> Tensor:
        """The timestep for a told noise level, in the pipeline's own unit.

        Args:
            given: what the pipeline passes at ``sigma``: a scalar, (batch,) or (batch, tokens).
            sigma: true noise level, one value.
            told: noise levels to tell, (batch,).
        """
        given = given.to(told.device, torch.promote_types(told.dtype, torch.float32))
        rows = (-1, *[1] * (given.ndim - 1))
        if self._table is None:
            return given * (told / sigma).reshape(rows)
        # As a shift from what is given: schedulers round timesteps, and the lie must not be
        # drowned in that (at low noise a tenth of sigma is less than one timestep).
        shift = self._position(told) - self._position(sigma)
        return (given + shift.to(given.dtype).reshape(rows)).clamp(0, len(self._table) - 1)

    def _position(self, sigma: Tensor) -> Tensor:
        """Fractional timestep of a noise level, linear in log-sigma, as Karras et al.'s wrapper has it."""
        assert self._table is not None
        table = self._table = self._table.to(sigma.device)
        logs = sigma.double().log()
        high = torch.searchsorted(table, logs).clamp(1, len(table) - 1)
        low = table[high - 1]
        return high - 1 + ((logs - low) / (table[high] - low)).clamp(0, 1)

    def _find(self, given: Tensor) -> int:
        """Index of the current step among the scheduler's timesteps."""
        for name in ("step_index", "begin_index"):
            index = getattr(self._scheduler, name, None)
            if index is not None:
                return int(index)
        # Before the first ``step`` some pipelines leave both unset.
        value = given.detach().float().max().to(self._timesteps.device)
        exact = (self._timesteps == value).nonzero().flatten()
        if len(exact):
            # Of two alike, schedulers begin with the second.
            return int(exact[1 if len(exact) > 1 else 0])
        count = self._scheduler.config.num_train_timesteps
        scaled = value if value > 1 else value * count
        return int((self._timesteps - scaled).abs().argmin())

    def _check(self, given: Tensor) -> None:
        """Refuse pipelines that count time in a way this module does not know."""
        time = float(self._timesteps[self.index])
        value = float(given.detach().float().max())
        count = self._scheduler.config.num_train_timesteps
        units = (1.0, 1.0 / count) if self._table is None else (1.0,)
        # Half precision keeps three digits of a timestep.
        if not any(abs(value - time * unit) <= (0.01 * time + 0.5) * unit for unit in units):
            raise ValueError(
                f"the pipeline gives its model timestep {value:g} where its scheduler is at {time:g}: supported are "
                "the scheduler's own timesteps and, for flow models, the same divided by "
                f"{count} (not reversed or rescaled ones, as Lumina 2 and Z-Image have)"
            )
