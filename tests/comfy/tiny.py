"""A tiny MODEL that goes through the real CFGGuider, calc_cond_batch and BaseModel."""

from __future__ import annotations

import inspect
from functools import cache
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
import pytest
import torch
from torch import Tensor, nn

from selective_sigma import Settings
from selective_sigma.comfy.run.sampler import wrap

if TYPE_CHECKING:
    from collections.abc import Callable

EPS = comfy.model_base.ModelType.EPS
FLOW = comfy.model_base.ModelType.FLOW
KINDS = {"eps": EPS, "flow": FLOW}
each_kind = pytest.mark.parametrize("kind", KINDS)
ZEROS, ONES = Settings(mask_override="zeros", every=1), Settings(mask_override="ones", every=1)
FULL = Settings(coverage=1.0, every=1)
CHANNELS = 4
# Not on the network and not in a closure, where the changes of a lied call are undone.
CALLS: WeakKeyDictionary[nn.Module, list[float]] = WeakKeyDictionary()


class TinyNet(nn.Module):
    """The exact denoiser of white noise, plus a texture that depends on the context; one to three space axes.

    Nonlinear and deterministic. A sample does not depend on the rest of its batch. Runs can be compared bit for bit.
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
        # As in ComfyUI's own networks. EasyCache is a wrapper of this kind.
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
    model_config = comfy.supported_models_base.BASE(unet_config)
    model_config.unet_config = unet_config
    model_config.latent_format = comfy.latent_formats.SD15()
    model_config.sampling_settings = settings
    model_config.memory_usage_factor = 1.0
    model_config.optimizations = {}
    return model_config


def patcher(base: Any) -> comfy.model_patcher.ModelPatcher:
    device = torch.device("cpu")
    base.eval().requires_grad_(False)
    return comfy.model_patcher.ModelPatcher(base, load_device=device, offload_device=device)


def model(kind: Any = EPS, axes: int = 2) -> comfy.model_patcher.ModelPatcher:
    """A MODEL around ``TinyNet``. ``calls`` returns the timesteps of its calls."""
    settings = {"shift": 3.0} if kind is FLOW else {}
    model_config = config({"axes": axes, "flow": kind is FLOW}, settings)
    return patcher(comfy.model_base.BaseModel(model_config, kind, device=torch.device("cpu"), unet_model=TinyNet))


@cache
def shared_model(kind: str = "eps", axes: int = 2) -> comfy.model_patcher.ModelPatcher:
    """A MODEL of ``KINDS``, the same in all tests. A test that changes it works on a clone, or makes its own."""
    return model(KINDS[kind], axes)


@cache
def unet() -> comfy.model_patcher.ModelPatcher:
    """An eps MODEL with attention blocks, which PAG and SAG patch: ComfyUI's own UNet, small and random."""
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
    """The timesteps of all calls of ``TinyNet``. A test may clear the list."""
    return CALLS[model.model.diffusion_model]


ROWS: list[int] = []
"""Rows of each call of a network under ``counting_rows``. At module level, since a lied call's changes to closures are
undone."""


def counting_rows(model: Any) -> Any:
    """A clone of a MODEL that appends to ``ROWS``."""

    def count(executor: Any, x: Tensor, *args: Any, **named: Any) -> Any:
        ROWS.append(len(x))
        return executor(x, *args, **named)

    model = model.clone()
    model.add_wrapper_with_key("diffusion_model", "count", count)
    return model


def prompt(seed: int, width: int = 8, length: int = 3, **more: Any) -> list[list[Any]]:
    """A CONDITIONING."""
    return [[torch.randn(1, length, width, generator=torch.Generator().manual_seed(seed)), more]]


def schedule(model: Any, steps: int = 10, name: str = "normal") -> Tensor:
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), name, steps)


def sampler(name: str = "euler", settings: Settings | None = None, **options: Any) -> comfy.samplers.KSAMPLER:
    """A SAMPLER; with ``settings``, wrapped."""
    bare = comfy.samplers.sampler_object(name)
    return bare if settings is None else wrap(bare, settings, **options)


def sample(
    model: Any,
    sampler: Any,
    sigmas: Tensor | None = None,
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
    """As SamplerCustom samples, always from the same seeds; over ten steps where no ``sigmas`` are named."""
    sigmas = schedule(model) if sigmas is None else sigmas
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
    """The first output of a node of ComfyUI's old or new node API."""
    if hasattr(kind, "execute"):
        return kind.execute(*args, **named).result[0]
    return getattr(kind(), kind.FUNCTION)(*args, **named)[0]


def windowed(model: Any, length: int, overlap: int, *options: Any, freenoise: bool = False) -> Any:
    """A MODEL under ComfyUI's context windows; ``freenoise`` is left out where this ComfyUI does not have it."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    has_freenoise = "freenoise" in inspect.signature(ContextWindowsManualNode.execute).parameters
    named = {"freenoise": freenoise} if has_freenoise else {}
    return ContextWindowsManualNode.execute(model, length, overlap, *options, **named).result[0]


def effect(changed: Tensor, plain: Tensor) -> float:
    """L2 size of a change."""
    return float((changed - plain).norm())


def detail_daemon(sampler: Any) -> Any:
    """A sampler around another one that lowers the noise level of each call of the model, as Detail Daemon does."""

    def sample(model: Any, x: Tensor, sigmas: Tensor, wrapped: Any, **options: Any) -> Tensor:
        def lower(x: Tensor, sigma: Tensor, **more: Any) -> Tensor:
            return model(x, sigma * 0.98, **more)

        for name in ("inner_model", "sigmas"):
            setattr(lower, name, getattr(model, name))
        return wrapped.sampler_function(lower, x, sigmas, **options, **wrapped.extra_options)

    return comfy.samplers.KSAMPLER(sample, extra_options={"wrapped": sampler})
