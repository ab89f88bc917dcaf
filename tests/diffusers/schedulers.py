"""The supported schedulers, by the names that tests use."""

from __future__ import annotations

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSDEScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

UNET_SCHEDULERS = {
    "euler": lambda: EulerDiscreteScheduler(**SD, timestep_spacing="leading"),
    "euler_karras_v": lambda: EulerDiscreteScheduler(**SD, use_karras_sigmas=True, prediction_type="v_prediction"),
    "euler_ancestral": lambda: EulerAncestralDiscreteScheduler(**SD),
    "heun": lambda: HeunDiscreteScheduler(**SD),
    "lms": lambda: LMSDiscreteScheduler(**SD),
    "dpmpp_2m_karras": lambda: DPMSolverMultistepScheduler(**SD, use_karras_sigmas=True),
    "dpmpp_2m_sde": lambda: DPMSolverMultistepScheduler(**SD, algorithm_type="sde-dpmsolver++"),
    "dpmpp_2s": lambda: DPMSolverSinglestepScheduler(**SD),
    "dpmpp_sde": lambda: DPMSolverSDEScheduler(**SD, noise_sampler_seed=3),
    "deis": lambda: DEISMultistepScheduler(**SD),
    "unipc": lambda: UniPCMultistepScheduler(**SD),
    "ddim": lambda: DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    "ddim_zero_snr": lambda: DDIMScheduler(
        **SD,
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    ),
    "ddpm": lambda: DDPMScheduler(**SD, clip_sample=False),
    "lcm": lambda: LCMScheduler(**SD),
    "tcd": lambda: TCDScheduler(**SD),
}
FLOW_SCHEDULERS = {
    "flow_euler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
    "flow_heun": lambda: FlowMatchHeunDiscreteScheduler(shift=3.0),
    "flow_unipc": lambda: UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    ),
    "flow_dpmpp_2m": lambda: DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    ),
}
