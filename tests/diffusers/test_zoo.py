"""Every pipeline of the zoo: what must be equal is equal bit for bit. The compatibility page shows the table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selective_sigma.diffusers import detail
from selective_sigma.diffusers.noise import Noise, check

from .zoo import REFUSED, ZOO, build

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
    assert not torch.equal(everywhere, plain)
    assert not torch.equal(chosen, plain)
    assert chosen.isfinite().all()
    with detail(tiny.pipe, strength=0):
        assert torch.equal(tiny(), plain)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    make, reason = REFUSED[name]
    scheduler = make()
    with pytest.raises(ValueError, match=reason) as caught:
        check(scheduler)
        scheduler.set_timesteps(8)
        Noise(scheduler)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*ZOO, *REFUSED])
def test_is_on_the_page(name):
    assert f"| {name} |" in PAGE.read_text()
