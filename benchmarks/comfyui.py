"""Every sampler of ComfyUI itself on the 4x4 mixture, at ``every`` 1 and 2; run it with ComfyUI's own Python.

COMFYUI_PATH=~/comfy/ComfyUI ~/comfy/ComfyUI/.venv/bin/python -m benchmarks.comfyui
"""

# ComfyUI is in ComfyUI's own environment alone.
# pyright: reportMissingImports=false

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from selective_sigma import Settings

from . import figures, rows
from .models import mixture4

if TYPE_CHECKING:
    from torch import Tensor

STEPS, STRENGTH, QUESTION = 20, 0.1, "comfyui"
SCHEDULES = {"eps, karras": "karras", "eps, normal": "normal", "flow, shift 3": "normal"}
PATH = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()
MODEL = mixture4(range(12), 3)


def comfy_model(flow: bool) -> Any:
    """The exact denoiser as a MODEL of ComfyUI."""
    import comfy.latent_formats
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models_base

    class Exact(comfy.model_base.BaseModel):
        """What the network would be asked for is known."""

        def _apply_model(self, x: Tensor, t: Tensor, *_: Any, **__: Any) -> Tensor:
            level = min(float(t[0]), 0.9999) if flow else float(t[0])
            alpha = 1 - level if flow else 1.0
            denoised = MODEL.denoise(x / alpha, level / alpha).denoised
            assert isinstance(denoised, torch.Tensor)
            return denoised

    config = comfy.supported_models_base.BASE({"disable_unet_model_creation": True})
    config.unet_config = {"disable_unet_model_creation": True}
    config.latent_format = comfy.latent_formats.LatentFormat()
    config.sampling_settings = {"shift": 3.0} if flow else {}
    config.memory_usage_factor, config.optimizations = 1.0, {}
    kind = comfy.model_base.ModelType.FLOW if flow else comfy.model_base.ModelType.EPS
    base, cpu = Exact(config, kind, device=torch.device("cpu")), torch.device("cpu")
    base.diffusion_model = torch.nn.Identity()
    base.diffusion_model.dtype = torch.float32
    return comfy.model_patcher.ModelPatcher(base, load_device=cpu, offload_device=cpu)


def picture(model: Any, name: str, schedule: str, settings: Settings | None) -> tuple[Tensor, int]:
    """What a sampler draws, and the model calls that it took."""
    import comfy.sample
    import comfy.samplers

    from selective_sigma.comfy.capture import Capture
    from selective_sigma.comfy.sampler import wrap

    sampler, capture = comfy.samplers.sampler_object(name), Capture()
    if settings is not None:
        sampler = wrap(sampler, settings, capture=capture)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), schedule, STEPS)
    torch.manual_seed(0)
    latent = torch.zeros(MODEL.shape)
    noise = comfy.sample.prepare_noise(latent, 0)
    prompt = [[torch.zeros(1, 1, 8), {}]]
    with torch.inference_mode():
        made = comfy.sample.sample_custom(
            model, noise, 1.0, sampler, sigmas, prompt, prompt, latent, disable_pbar=True, seed=0
        )
    report = capture.run.report if capture.run else None
    return made, report.calls if report else 0


def measure() -> list[rows.Row]:
    """Gain, leak and calls of every sampler at one strength."""
    import comfy.samplers

    found: list[rows.Row] = []
    for kind, schedule in SCHEDULES.items():
        model = comfy_model(kind.startswith("flow"))
        for name in comfy.samplers.SAMPLER_NAMES:
            plain, _ = picture(model, name, schedule, None)
            _, usual = picture(model, name, schedule, Settings(coverage=1.0))
            for every in (1, 2):
                detailed, calls = picture(model, name, schedule, Settings(strength=STRENGTH, every=every))
                size = len(plain) // MODEL.groups
                parts = [
                    figures.compare(detailed, plain, MODEL, slice(i, i + size)) for i in range(0, len(plain), size)
                ]
                spread = float(torch.tensor([f.leak for f in parts]).std())
                effect = asdict(figures.compare(detailed, plain, MODEL))
                ratio = calls / usual
                found.append(
                    rows.Effect(
                        question=QUESTION, model=MODEL.name, schedule=kind, sampler=name, steps=STEPS,
                        label=f"every {every}", strength=STRENGTH, leak_spread=spread, calls=ratio, **effect,
                    )
                )  # fmt: skip
                print(
                    f"{found[-1].key}: gain {effect['gain']:.3f} leak {effect['leak']:.3f} calls {ratio:.2f}",
                    flush=True,
                )
    return found


def main() -> None:
    """Measure and keep the rows."""
    sys.path.append(str(PATH))
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    began, found = time.perf_counter(), measure()
    commit = subprocess.run(["git", "describe", "--always", "--dirty=+"], check=True, capture_output=True, text=True)
    version = (PATH / "comfyui_version.py").read_text().split('"')[-2]
    device = f"ComfyUI {version}, {platform.machine()}, torch {torch.__version__}"
    made = rows.Made(QUESTION, MODEL.name, commit.stdout.strip(), device, time.perf_counter() - began)
    rows.write([*(row for row in rows.read() if row.question != QUESTION), made, *found])


if __name__ == "__main__":
    main()
