"""One strength does the same from 4 to 50 steps: linear theory, with the core's own schedule (method.md section 5).

Detail of amplitude c is a Gaussian mode, whose exact denoiser is linear in x. The Detailer runs on
such modes as it does on pictures; what is compared is the energy that they end up with.
"""

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from selective_sigma import Detailer, Prediction, Settings, schedule

COUNTS = (4, 6, 8, 12, 20, 30, 50)
# Fine detail: from a hundredth of the data's own spread to half of it, as many modes in every octave.
MODES = torch.logspace(-2, -0.3, 40, dtype=torch.float64).reshape(1, 1, -1)
# SD's and SDXL's noise levels, from their linear-in-square-root betas.
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
KEPT = (1 - BETAS).cumprod(0)
TABLE = ((1 - KEPT) / KEPT).sqrt()


def levels(name: str, steps: int) -> Tensor:
    """Noise levels of a run, in float32, as hosts have them."""
    places = torch.linspace(0, 1, steps, dtype=torch.float64)
    if name == "karras":
        top, low = 14.6 ** (1 / 7), 0.03 ** (1 / 7)
        return torch.cat([(top + places * (low - top)) ** 7, torch.zeros(1)]).float()
    if name == "normal":
        return torch.cat([TABLE.flip(0)[(places * 999).long()], torch.zeros(1)]).float()
    return shifted(float(name.removeprefix("flow ")), torch.linspace(1, 0, steps + 1)).float()


def shifted(shift: float, time: Tensor) -> Tensor:
    return shift * time / (1 + (shift - 1) * time)


def window(name: str, start: float) -> tuple[float, float]:
    """What a host hands over: the noise level at ``start`` of the model's own range, and zero."""
    if name.startswith("flow"):
        return float(shifted(float(name.removeprefix("flow ")), torch.tensor(1 - start))), 0.0
    return float(TABLE[int((1 - start) * 999)]), 0.0


def denoise(x: Tensor, sigma: float, flow: bool) -> Tensor:
    """The exact posterior mean of x0 for x = alpha x0 + sigma n, x0 of standard deviation MODES."""
    signal = (1 - sigma if flow else 1.0) * MODES
    return MODES * signal / (signal**2 + sigma**2) * x


def energies(predict, sigmas: Tensor, sampler: str, flow: bool) -> Tensor:
    """Variance of each mode at the end; all three samplers are linear, so that it is known exactly."""
    if sampler == "ancestral":
        return ancestral(predict, sigmas)
    x = torch.sqrt(((1 - sigmas[0]) * MODES if flow else MODES) ** 2 + sigmas[0].double() ** 2)
    before, length = None, 0.0
    for sigma, next_sigma in pairwise(sigmas):
        a, b = (1 - float(s) if flow else 1.0 for s in (sigma, next_sigma))
        used = denoised = predict(x, sigma)
        if sampler == "2m" and next_sigma > 0:
            h = math.log(float(sigma) / float(next_sigma) * b / max(a, 1e-4))
            if before is not None:
                used = denoised + (denoised - before) * h / (2 * length)
            length = h
        before = denoised
        keep = float(next_sigma) / float(sigma)
        x = keep * x + (b - a * keep) * used
    return x**2


def ancestral(predict, sigmas: Tensor) -> Tensor:
    """Euler ancestral, eta 1, on VE models."""
    variance = MODES**2 + sigmas[0].double() ** 2
    for sigma, next_sigma in pairwise(sigmas.double()):
        up = next_sigma * torch.sqrt(1 - (next_sigma / sigma) ** 2)
        down = next_sigma**2 / sigma
        gain = predict(torch.ones_like(MODES), sigma.float())
        variance = (gain + (1 - gain) * down / sigma) ** 2 * variance + up**2
    return variance


def gain(name: str, sampler: str, steps: int, settings: Settings, rounded: float = 1.0) -> float:
    """Energy of fine detail gained over the plain run, as a share; the levels handed over are off by ``rounded``."""
    flow = name.startswith("flow")
    sigmas = levels(name, steps)
    detailer = Detailer(
        settings, sigmas.double() * rounded, "flow" if flow else "ve", window=window(name, settings.start)
    )

    def detailed(x: Tensor, sigma: Tensor) -> Tensor:
        return detailer.step(lambda call: Prediction(denoise(call.x, float(call.sigma), flow)), x, sigma).denoised

    plain = energies(lambda x, sigma: denoise(x, float(sigma), flow), sigmas, sampler, flow)
    return float((energies(detailed, sigmas, sampler, flow) / plain - 1).mean())


NAMES = ("karras", "normal", "flow 1", "flow 3", "flow 7")
CASES = [(name, sampler) for name in NAMES for sampler in ("euler", "2m")] + [
    ("karras", "ancestral"),
    ("normal", "ancestral"),
]


def row(name: str, sampler: str, settings: Settings) -> dict[int, float]:
    return {steps: gain(name, sampler, steps, settings) for steps in COUNTS}


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize(("name", "sampler"), CASES)
def test_one_strength_does_the_same_at_any_number_of_steps(name, sampler, every):
    gains = row(name, sampler, Settings(coverage=1.0, every=every))
    assert gains == pytest.approx(dict.fromkeys(COUNTS, gains[20]), rel=0.17)


def test_the_tables_of_method_md_are_these():
    text = (Path(__file__).parents[2] / "docs/method.md").read_text()
    printed = {"Karras": "karras", "Euler": "euler", "DPM++ 2M": "2m", "Euler ancestral": "ancestral"}
    name, tabled = "", []
    for first, sampler, figures in re.findall(
        r"^\| ([\w ,]*)\| (Euler|DPM[+]{2} 2M|Euler ancestral) \|([ \d|]+)\|$", text, re.M
    ):
        name = printed.get(first.strip(), first.strip().replace(", shift", "")) or name
        tabled.append((name, printed[sampler]))
        gains = row(name, printed[sampler], Settings(coverage=1.0)).values()
        assert [int(figure) for figure in figures.split("|")] == [round(100 * g) for g in gains], (name, sampler)
    assert sorted(tabled) == sorted(CASES)


@pytest.mark.parametrize("strength", [-0.1, 0.05, 0.1, 0.2])
def test_the_gain_is_what_the_theory_says(strength):
    """Many short steps multiply the amplitude of detail by 1 / (1 - s), on any schedule."""
    expected = 1 / (1 - strength) ** 2 - 1
    for name in ("normal", "flow 3"):
        assert gain(name, "euler", 50, Settings(strength, coverage=1.0, every=1)) == pytest.approx(expected, rel=0.05)


def test_the_last_step_has_to_be_halved(monkeypatch):
    monkeypatch.setattr(schedule, "LAST_STEP_SHARE", 1.0)
    gains = row("flow 3", "euler", Settings(coverage=1.0))
    assert gains[4] > 1.2 * gains[20] > 1.2 * 1.5 * 0.1


def test_long_steps_have_to_stand_for_themselves(monkeypatch):
    text = (Path(__file__).parents[2] / "docs/method.md").read_text()
    for rule in ("with the rule", "without"):
        gains = row("normal", "2m", Settings(coverage=1.0, every=2)).values()
        printed = re.search(rf"^\| {rule} \| (.*) \|$", text, re.M)
        assert printed
        assert [int(figure) for figure in printed[1].split("/")] == [round(100 * g) for g in gains]
        monkeypatch.setattr(schedule, "LONG_STEP", math.inf)
    assert min(gains) < 0


@pytest.mark.parametrize("rounded", [1 - 1e-7, 1 + 1e-7])
def test_levels_that_a_host_rounds_are_the_same_steps(rounded):
    settings = Settings(coverage=1.0)
    exact = gain("flow 7", "euler", 8, settings)
    assert gain("flow 7", "euler", 8, settings, rounded) == pytest.approx(exact, rel=1e-4)
