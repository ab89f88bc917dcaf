"""Sampler names of the command line and the diffusers schedulers behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_TABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
"""Stable Diffusion's noise table, which the embedded network is run on."""


def _ve(cls: str, **options: Any) -> Callable[[dict[str, Any]], Any]:
    def make(config: dict[str, Any]) -> Any:
        # Here, so that the command line's --help can name the samplers without waiting for it.
        import diffusers

        return getattr(diffusers, cls).from_config(config, **options)

    return make


VE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "euler": _ve("EulerDiscreteScheduler"),
    "euler_ancestral": _ve("EulerAncestralDiscreteScheduler"),
    "heun": _ve("HeunDiscreteScheduler"),
    "dpmpp_2m": _ve("DPMSolverMultistepScheduler", final_sigmas_type="zero"),
    "dpmpp_2m_sde": _ve("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", final_sigmas_type="zero"),
    "dpmpp_sde": _ve("DPMSolverSDEScheduler"),
    "ddim": _ve("DDIMScheduler"),
    "unipc": _ve("UniPCMultistepScheduler"),
    "lcm": _ve("LCMScheduler"),
}
FLOW: dict[str, Callable[[dict[str, Any]], Any]] = {
    "euler": _ve("FlowMatchEulerDiscreteScheduler"),
    "heun": _ve("FlowMatchHeunDiscreteScheduler"),
    "dpmpp_2m": _ve("DPMSolverMultistepScheduler", use_flow_sigmas=True, prediction_type="flow_prediction"),
    "dpmpp_2m_sde": _ve(
        "DPMSolverMultistepScheduler",
        use_flow_sigmas=True,
        prediction_type="flow_prediction",
        algorithm_type="sde-dpmsolver++",
    ),
    "unipc": _ve("UniPCMultistepScheduler", use_flow_sigmas=True, prediction_type="flow_prediction"),
}


def scheduler(name: str, flow: bool = False, config: dict[str, Any] | None = None) -> Any:
    """The scheduler of that name, for the embedded network or from a checkpoint's own config.

    Raises:
        ValueError: the name is unknown for this family; the message lists those that are known.
    """
    samplers = FLOW if flow else VE
    if name not in samplers:
        family = "rectified-flow" if flow else "VE"
        raise ValueError(f"sampler {name!r} is unknown for {family} models: choose one of {', '.join(samplers)}")
    if config is None:
        config = {} if flow else {**_TABLE, "prediction_type": "epsilon", "timestep_spacing": "linspace"}
    return samplers[name](dict(config))
