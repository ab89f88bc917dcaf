"""The identities, bit for bit, with every scheduler on the pipelines that take it."""

from __future__ import annotations

import pytest
import torch

from selective_sigma.diffusers import detail

from .pipes import CASES, build

# Flux calls set_timesteps(sigmas=...), which these schedulers do not take.
CASES = [case for case in CASES if not (case[0].startswith("flux") and case[1] in ("flow_heun", "flow_dpmpp_2m"))]


def run(tiny, **settings):
    with detail(tiny.pipe, **settings) as run:
        return tiny(), run


@pytest.mark.parametrize(("pipe", "scheduler"), CASES)
def test_identities(pipe, scheduler):
    tiny = build(pipe, scheduler)
    plain = tiny()

    zeros, report = run(tiny, mask_override="zeros")
    assert torch.equal(zeros, plain)
    assert report.report.lied > 0

    everywhere, report = run(tiny, coverage=1.0)
    assert report.report.calls == report.report.steps
    ones, _ = run(tiny, mask_override="ones")
    assert torch.equal(ones, everywhere)
    assert not torch.equal(ones, plain)

    chosen, report = run(tiny)
    assert chosen.isfinite().all()
    effect = (chosen - plain).norm()
    assert 0 < effect < 2 * (everywhere - plain).norm()
    assert report.report.nonfinite == 0

    assert torch.equal(tiny(), plain)


@pytest.mark.parametrize("pipe", ["sdxl", "flux", "wan"])
def test_half_precision(pipe):
    tiny = build(pipe)
    tiny.module.to(torch.bfloat16)
    tiny.arguments = {k: v.to(torch.bfloat16) if isinstance(v, torch.Tensor) else v for k, v in tiny.arguments.items()}
    plain = tiny()
    assert torch.equal(run(tiny, mask_override="zeros")[0], plain)
    assert torch.equal(run(tiny, mask_override="ones")[0], run(tiny, coverage=1.0)[0])
    chosen, _ = run(tiny)
    assert chosen.dtype == plain.dtype
    assert chosen.isfinite().all()
    assert not torch.equal(chosen, plain)
