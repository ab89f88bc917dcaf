"""Every pipeline of the zoo: what must be equal is equal bit for bit. The compatibility page shows the table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selective_sigma.diffusers import detail
from selective_sigma.diffusers.noise import Noise, check

from .zoo import GRIDS, REFUSED, ZOO, build

HUNYUAN_VAE = (
    "AutoencoderKLHunyuanVideo",
    {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "latent_channels": 16},
)
PAGE = Path(__file__).parents[2] / "docs" / "compatibility-diffusers.md"


@pytest.mark.parametrize("name", ZOO)
def test_identities(name):
    tiny = build(name)
    plain = tiny()
    with detail(tiny.pipe, mask_override="zeros") as run:
        assert torch.equal(tiny(), plain)
        assert run.report.lied >= run.report.steps // 4
    with detail(tiny.pipe, coverage=1.0) as run:
        everywhere = tiny()
        assert run.report.calls == run.report.steps
    with detail(tiny.pipe, mask_override="ones"):
        assert torch.equal(tiny(), everywhere)
    with detail(tiny.pipe) as run:
        chosen = tiny()
    assert run.mask.shape == (1, 1, *GRIDS.get(name, (8, 12)))
    assert not torch.equal(everywhere, plain)
    assert not torch.equal(chosen, plain)
    assert chosen.isfinite().all()
    with detail(tiny.pipe, strength=0):
        assert torch.equal(tiny(), plain)


@pytest.mark.parametrize(
    ("name", "changes", "grid"),
    [
        ("Hunyuan Video", {"num_frames": 13}, (4, 8, 12)),
        ("Wan 2.2 5B (a time for each token)", {"num_frames": 13}, (4, 8, 12)),
        ("Lumina 2", {"height": 32, "width": 32}, (4, 4)),
    ],
)
def test_as_many_channels_as_frames_or_rows(name, changes, grid):
    """A picture has its channels first, and so has a clip for a model that begins with a 3-D convolution."""
    tiny = build(name)
    with detail(tiny.pipe) as run:
        tiny(num_inference_steps=4, **changes)
    assert run.mask.shape == (1, 1, *grid)


@pytest.mark.parametrize(
    ("name", "changes", "shape"),
    [
        ("Kandinsky 5 video", {"height": 128, "width": 128}, r"\(3, 16, 16, 16\)"),
        ("CogVideoX", {"height": 32, "width": 64, "num_frames": 13}, r"\(4, 4, 4, 8\)"),
        ("Stable Video Diffusion", {"num_frames": 4}, r"\(4, 4, 8, 12\)"),
    ],
)
def test_axes_that_nothing_tells_apart_are_refused(name, changes, shape):
    tiny = build(name, {"vae": HUNYUAN_VAE} if "Kandinsky" in name else None)
    message = f"cannot work with {type(tiny.pipe).__name__}: nothing tells which axis of its latent {shape} holds"
    with pytest.raises(ValueError, match=message) as caught, detail(tiny.pipe):
        tiny(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    make, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason) as caught:
        _understand(make())
    assert "\n" not in str(caught.value)


def _understand(scheduler):
    check(scheduler)
    scheduler.set_timesteps(8)
    Noise(scheduler)


@pytest.mark.parametrize("name", [*ZOO, *REFUSED])
def test_is_on_the_page(name):
    assert f"| {name} |" in PAGE.read_text()
