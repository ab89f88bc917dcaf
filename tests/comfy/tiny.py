"""A tiny MODEL that goes through the real CFGGuider, calc_cond_batch and BaseModel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.supported_models_base
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

EPS = comfy.model_base.ModelType.EPS
FLOW = comfy.model_base.ModelType.FLOW
CHANNELS = 4
# Not on the network or in a closure: what a lied call changes there is put back.
CALLS: WeakKeyDictionary[nn.Module, list[float]] = WeakKeyDictionary()


class Net(nn.Module):
    """The exact denoiser of white noise, plus a texture that depends on context; one to three space axes.

    Deterministic in its input, nonlinear, and blind to the batch, so that anything can be compared bit for bit.
    """

    def __init__(self, axes: int = 2, flow: bool = False, **_: Any):
        super().__init__()
        self.dtype = torch.float32
        self.flow = flow
        CALLS[self] = []
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.read = conv(CHANNELS, 8, 3, padding=1)
            self.write = conv(8, CHANNELS, 3, padding=1)
            self.context = nn.Linear(8, 8)
        self.requires_grad_(False)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        control: Any = None,
        transformer_options: Any = None,
        **_: Any,
    ) -> Tensor:
        # As ComfyUI's own networks do; EasyCache sits here.
        kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
        wrappers = comfy.patcher_extension.get_all_wrappers(kind, transformer_options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self.predict, self, wrappers)
        return executor.execute(x, timesteps, context, control, transformer_options)

    def predict(self, x: Tensor, timesteps: Tensor, context: Tensor, *_: Any) -> Tensor:
        CALLS[self].append(float(timesteps[0]))
        each = (-1, *[1] * (x.ndim - 1))
        t = timesteps.reshape(each).float() / 1000
        prompt = self.context(context.mean(1)).reshape(len(x), 8, *each[2:])
        texture = self.write(torch.tanh(self.read(x) + prompt))
        if self.flow:
            plain = x * (2 * t - 1) / (t * t + (1 - t) ** 2)
            return plain - (1 - t) * texture
        noisy = torch.sigmoid((t - 0.5) * 12)
        return noisy * x + (1 - noisy) * 0.5 * texture


def config(unet_config: dict[str, Any], settings: dict[str, Any]) -> Any:
    made = comfy.supported_models_base.BASE(unet_config)
    made.unet_config = unet_config
    made.latent_format = comfy.latent_formats.SD15()
    made.sampling_settings = settings
    made.memory_usage_factor = 1.0
    made.optimizations = {}
    return made


def patcher(base: Any) -> comfy.model_patcher.ModelPatcher:
    device = torch.device("cpu")
    base.eval().requires_grad_(False)
    return comfy.model_patcher.ModelPatcher(base, load_device=device, offload_device=device)


def model(kind: Any = EPS, axes: int = 2) -> comfy.model_patcher.ModelPatcher:
    """A MODEL around ``Net``; ``calls`` has the timesteps that it was asked for."""
    settings = {"shift": 3.0} if kind is FLOW else {}
    made = config({"axes": axes, "flow": kind is FLOW}, settings)
    return patcher(comfy.model_base.BaseModel(made, kind, device=torch.device("cpu"), unet_model=Net))


def unet() -> comfy.model_patcher.ModelPatcher:
    """An eps MODEL with the attention blocks that PAG and SAG patch: ComfyUI's own UNet, small and random."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    settings: dict[str, Any] = {"image_size": 32, "in_channels": CHANNELS, "out_channels": CHANNELS}
    settings |= {"model_channels": 32, "num_res_blocks": [1, 1], "channel_mult": [1, 1], "dtype": torch.float32}
    settings |= {"transformer_depth": [1, 1], "transformer_depth_output": [1, 1, 1, 1], "transformer_depth_middle": 1}
    settings |= {"use_spatial_transformer": True, "context_dim": 8, "num_heads": 2, "num_head_channels": -1}
    base = comfy.model_base.BaseModel(config(settings, {}), EPS, device=torch.device("cpu"), unet_model=UNetModel)
    randomise(base.diffusion_model)
    return patcher(base)


def randomise(module: nn.Module) -> None:
    """Fill weights that ComfyUI leaves unset: random matrices of gain one, plain norms."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if value.ndim > 1:
                value.normal_(0.0, value[0].numel() ** -0.5, generator=generator)
            else:
                value.fill_(0.0 if name.endswith("bias") else 1.0)


def calls(model: Any) -> list[float]:
    return CALLS[model.model.diffusion_model]


def prompt(seed: int, width: int = 8, length: int = 3, **more: Any) -> list[list[Any]]:
    """A CONDITIONING."""
    return [[torch.randn(1, length, width, generator=torch.Generator().manual_seed(seed)), more]]


def schedule(model: Any, steps: int = 10, name: str = "normal") -> Tensor:
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), name, steps)


def sampler(name: str) -> comfy.samplers.KSAMPLER:
    return comfy.samplers.sampler_object(name)


def sample(
    model: Any,
    sampler: Any,
    sigmas: Tensor,
    *,
    shape: tuple[int, ...] = (1, CHANNELS, 8, 8),
    cfg: float = 2.0,
    seed: int = 7,
    latent: Tensor | None = None,
    mask: Tensor | None = None,
    callback: Callable[..., Any] | None = None,
    width: int = 8,
    more: dict[str, Any] | None = None,
) -> Tensor:
    """What SamplerCustom does, with everything seeded alike."""
    latent = torch.zeros(shape) if latent is None else latent
    torch.manual_seed(seed)
    noise = comfy.sample.prepare_noise(latent, seed)
    positive, negative = prompt(1, width, **(more or {})), prompt(2, width, **(more or {}))
    with torch.inference_mode():
        return comfy.sample.sample_custom(
            model, noise, cfg, sampler, sigmas.clone(), positive, negative, latent,
            noise_mask=mask, callback=callback, disable_pbar=True, seed=seed,
        )  # fmt: skip


def node(kind: Any, *args: Any, **named: Any) -> Any:
    """The first output of a node, written in ComfyUI's old way or its new one."""
    if hasattr(kind, "execute"):
        return kind.execute(*args, **named).result[0]
    return getattr(kind(), kind.FUNCTION)(*args, **named)[0]


def effect(changed: Tensor, plain: Tensor) -> float:
    """L2 size of a change."""
    return float((changed - plain).norm())


def detail_daemon(sampler: Any) -> Any:
    """As Detail Daemon does: a sampler that holds another, and lowers the level on the way to the model."""

    def sample(model: Any, x: Tensor, sigmas: Tensor, held: Any, **given: Any) -> Tensor:
        def lower(x: Tensor, sigma: Tensor, **more: Any) -> Tensor:
            return model(x, sigma * 0.98, **more)

        for name in ("inner_model", "sigmas"):
            setattr(lower, name, getattr(model, name))
        return held.sampler_function(lower, x, sigmas, **given, **held.extra_options)

    return comfy.samplers.KSAMPLER(sample, extra_options={"held": sampler})
