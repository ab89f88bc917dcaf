"""A lied call leaves no trace: neither in numbers that processors keep, nor in the global random generators."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from selective_sigma.diffusers import detail

from .pipes import sdxl


class Counting(AttnProcessor2_0):
    """Counts its calls, and changes its output after the fourth, as processors of accelerators do."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return super().__call__(*args, **kwargs) * (1.0 if self.calls <= 4 else 0.5)


def test_numbers_that_processors_keep_are_the_plain_runs():
    tiny = sdxl()
    processor = Counting()

    def fresh(**settings):
        processor.calls = 0
        tiny.pipe.unet.set_attn_processor(dict.fromkeys(tiny.pipe.unet.attn_processors, processor))
        if not settings:
            return tiny()
        with detail(tiny.pipe, **settings):
            return tiny()

    plain = fresh()
    counted = processor.calls
    assert torch.equal(fresh(mask_override="zeros"), plain)
    assert processor.calls == counted


@pytest.mark.parametrize("draw", ["torch", "numpy", "python"])
def test_draws_from_global_generators_are_the_plain_runs(draw):
    tiny = sdxl()
    draws = {
        "torch": lambda: float(torch.rand(())),
        "numpy": lambda: float(np.random.random()),
        "python": random.random,
    }

    def noisy(_, __, answer):
        return (answer[0] * (1 + 0.1 * draws[draw]()), *answer[1:])

    tiny.module.register_forward_hook(noisy)

    def fresh(**settings):
        random.seed(0)
        np.random.seed(0)
        if not settings:
            return tiny()
        with detail(tiny.pipe, **settings) as run:
            result = tiny()
            assert run.report.lied > 0 or run.settings.idle
            return result

    plain = fresh()
    assert torch.equal(fresh(mask_override="zeros"), plain)
    assert torch.equal(fresh(mask_override="ones"), fresh(coverage=1.0))
