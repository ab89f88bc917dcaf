"""What an artist meets: inputs and outputs, search aliases, categories, and the demo model with ComfyUI's own nodes."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import comfy.samplers
import nodes as core
import pytest
import tiny
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_extras.nodes_custom_sampler import KSamplerSelect
from comfy_extras.nodes_hypertile import HyperTile

from selective_sigma.comfy.nodes import nodes, preview, preview_node, widgets, words
from selective_sigma.comfy.run.network import NetworkCount
from selective_sigma.comfy.run.sampler import wrap
from selective_sigma.comfy.run.summary import summary
from selective_sigma.report import Reason, Report
from selective_sigma.settings import Settings

if TYPE_CHECKING:
    from selective_sigma.comfy.run.capture import Capture

pytestmark = pytest.mark.usefixtures("temp_folder")
CLASSES = {kind.__name__: kind for kind in asyncio.run(nodes.SelectiveSigmaExtension().get_node_list())}
SCHEMAS = {name: kind.GET_SCHEMA() for name, kind in CLASSES.items()}
SIMPLE, ON_MODEL, DEBUG, PREVIEW, DEMO = CLASSES.values()


@pytest.mark.parametrize("kind", [SIMPLE, ON_MODEL], ids=lambda kind: kind.__name__)
def test_the_usual_strengths_are_hit_exactly(kind: Any):
    strength, coverage = kind.GET_SCHEMA().inputs[1:3]
    assert (
        (strength.id, strength.min, strength.max)
        == ("strength", *widgets.PRODUCTION_STRENGTH)
        == ("strength", 0.0, 0.5)
    )
    in_debug = next(one for one in SCHEMAS[DEBUG.__name__].inputs if one.id == "strength")
    assert strength.step == in_debug.step == 0.05
    assert strength.round == in_debug.round
    # As the frontend rounds what is typed.
    for typed in (0.0, 0.05, 0.1, 0.15, 0.075, 0.5):
        assert round(round(typed / strength.round) * strength.round, 3) == typed
    assert (coverage.min, coverage.max, coverage.step) == (0.0, 1.0, 0.05)
    assert all(one.display_mode in (None, io.NumberDisplay.number) for one in (strength, coverage))


def test_categories_are_those_of_comfyuis_own_nodes():
    hypertile = HyperTile.CATEGORY
    assert KSamplerSelect.CATEGORY == SCHEMAS[SIMPLE.__name__].category == SCHEMAS[DEBUG.__name__].category
    assert hypertile.startswith(SCHEMAS[ON_MODEL.__name__].category)
    assert SCHEMAS[DEMO.__name__].is_experimental


@pytest.mark.skipif(
    not hasattr(SCHEMAS[SIMPLE.__name__], "search_aliases"), reason="this ComfyUI has no search aliases"
)
def test_the_production_nodes_share_their_search_aliases_and_no_others_do():
    aliases = [set(schema.search_aliases) for schema in SCHEMAS.values()]
    assert all(aliases)
    assert aliases[0] & aliases[1] == set(words.DETAIL_ALIASES)
    assert {"sky grain", "skin texture", "more detail", "detail daemon", "lying sigma"} <= set(words.DETAIL_ALIASES)
    aliases[1] -= aliases[0]
    assert len(set.union(*aliases)) == sum(map(len, aliases))


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_node_says_first_where_it_goes(kind: str):
    assert SCHEMAS[kind].description.startswith(("For SamplerCustom", "For KSampler", "After the", "In place of"))


@pytest.mark.parametrize("kind", [SIMPLE, ON_MODEL], ids=lambda kind: kind.__name__)
def test_a_linked_strength_outside_the_widget_is_refused_with_its_range(kind: Any):
    target = tiny.sampler() if kind is SIMPLE else tiny.model()
    for strength in (0.8, 2.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"give a number from 0 to 0\.5"):
            kind.execute(target, strength, 0.5)
    kind.execute(target, 0.5, 0.5)


@pytest.mark.skipif(not widgets.HAS_ADVANCED, reason="this ComfyUI has no advanced inputs")
def test_rarely_needed_inputs_are_advanced():
    folded = {one.id for one in SCHEMAS[DEBUG.__name__].inputs if getattr(one, "advanced", None)}
    assert folded == {"ema", "mask_clip_percentile", "lie", "mask_source"}


def test_the_debug_node_takes_a_model_too():
    levels, plain = tiny.schedule(tiny.model(), 10), tiny.model()
    out = DEBUG.execute(model=plain, strength=0.2)
    nothing, ref, patched = out.args
    assert isinstance(nothing, ExecutionBlocker)
    assert "connect its sampler" in nothing.message
    ours = tiny.sample(patched, tiny.sampler(), levels)
    wanted = tiny.sample(tiny.model(), wrap(tiny.sampler(), Settings(strength=0.2)), levels)
    assert torch.equal(ours, wanted)
    assert len(ref.of(ours).masks) == 6
    assert isinstance(DEBUG.execute(tiny.sampler()).args[2], ExecutionBlocker)


def test_the_debug_node_refuses_to_run_without_sampler_and_model():
    with pytest.raises(ValueError, match="connect a sampler or a model"):
        DEBUG.execute(strength=0.1)


def test_the_model_node_hands_out_its_masks():
    patched, ref = ON_MODEL.execute(tiny.model(), 0.2, 0.5).args
    done = tiny.sample(patched, tiny.sampler(), tiny.schedule(patched, 10))
    _, pictures, mask = PREVIEW.execute({"samples": done}, ref, "every step").args
    assert len(pictures) == len(ref.run.masks) == 6
    assert ref.run.steps == 10
    assert mask.shape == (1, *(8 * side for side in done.shape[2:]))
    assert 0 < mask.mean() < 1


@pytest.mark.parametrize(
    ("channels", "space", "scale"), [(128, (8, 8), 16), (3, (64, 48), 1), (4, (16, 16), 8)], ids=str
)
def test_a_mask_is_as_large_as_the_picture_of_its_latent(channels: int, space: tuple[int, ...], scale: int):
    """Without a model, the scale is that of ComfyUI's latent formats of the same shape."""
    formats = [getattr(comfy.latent_formats, name, None) for name in ("Flux2", "ChromaRadiance")]
    if scale != 8 and not all(hasattr(kind, "spacial_downscale_ratio") for kind in formats):
        pytest.skip("this ComfyUI's latent formats do not say their scale")
    mask = PREVIEW.execute({"samples": torch.zeros(1, channels, *space)}).args[2]
    assert mask.shape == (1, *(scale * side for side in space))


def test_the_demo_models_mask_is_as_large_as_its_picture():
    model, positive, negative, _, latent = DEMO.execute(torch.rand(1, 64, 48, 3)).args
    patched, ref = ON_MODEL.execute(model, 0.2, 0.5).args
    done = core.KSampler().sample(patched, 3, 8, 1.0, "euler", "karras", positive, negative, latent)[0]
    assert PREVIEW.execute(done, ref).args[2].shape == (1, 64, 48)


def test_a_sampler_without_a_function_is_captured_at_the_guider():
    class Functionless(comfy.samplers.Sampler):
        def sample(self, model, sigmas, extra_args, callback, noise, *_: Any, **__: Any) -> torch.Tensor:
            x = noise * sigmas[0]
            for i, (high, low) in enumerate(itertools.pairwise(sigmas)):
                denoised = model(x, high.expand(len(x)), **extra_args)
                x = denoised + (x - denoised) * low / high
                callback(i, denoised, x, len(sigmas) - 1)
            return x

    seen: list[int] = []
    patched, ref = ON_MODEL.execute(tiny.model(), 0.2, 0.5).args
    done = tiny.sample(patched, Functionless(), callback=lambda i, *_: seen.append(i))
    assert seen == list(range(10))
    assert ref.of(done).masks


def message_of(ref: Capture | None, done: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> str:
    messages: list[str] = []
    monkeypatch.setattr(preview_node, "message", lambda text: messages.append(text) or preview.message(text))
    mask = PREVIEW.execute({"samples": done}, ref).args[2]
    assert not mask.any()
    return messages[0]


@pytest.mark.parametrize(
    ("settings", "levels", "why"),
    [
        ({"strength": 0.0}, slice(None), Reason.IDLE),
        ({"start": 0.9}, slice(0, 4), Reason.WINDOW),
        ({}, "up", Reason.ASCENDING),
    ],
    ids=["strength 0", "outside start and end", "ascending"],
)
def test_a_run_without_detail_says_why(
    settings: dict[str, Any], levels: Any, why: Reason, monkeypatch: pytest.MonkeyPatch
):
    model = tiny.model()
    sigmas = tiny.schedule(model, 10)
    sigmas = sigmas[:-1].flip(0) if levels == "up" else sigmas[levels]
    wrapped, ref = DEBUG.execute(tiny.sampler(), **settings).args[:2]
    done = tiny.sample(model, wrapped, sigmas)
    assert message_of(ref, done, monkeypatch) == words.NO_DETAIL.format(why.text)


def test_a_line_for_the_console():
    report = Report(steps=24, plain=24, lied=8)
    means = [torch.tensor(0.25), torch.tensor(0.51)]
    count = NetworkCount(calls=32, rows=56, bare_calls=24, bare_rows=48, lies=8)
    assert summary(report, count, means, 8, 24) == (
        "detail on 8 of 24 steps, in 38 % of the picture, for 1.17x the work (1.33x the model calls)"
    )
    once = NetworkCount(calls=8, rows=8, bare_calls=8, bare_rows=8, lies=8)
    assert summary(Report(steps=8, lied=8), once, [torch.tensor(1.0)], 8, 8) == (
        "detail on 8 of 8 steps, in 100 % of the picture, for 1.00x the work"
    )
    nothing = Report(steps=8, plain=8)
    nothing.skip(Reason.WINDOW)
    assert summary(nothing, NetworkCount(), [], 0, 8) == "no detail (outside start and end)"
    assert summary(Report(), NetworkCount(), [], 0, 0) == "no detail (it has no steps)"


@pytest.mark.parametrize(("family", "scheduler"), [("ve", "karras"), ("flow", "simple")])
def test_the_demo_model_redraws_a_photograph_under_the_stock_nodes(family: str, scheduler: str):
    waves = torch.linspace(0, 40, 64)
    photo = 0.5 + 0.4 * (waves[:, None] / 8).sin() * (waves / 6).cos()
    photo = photo[None, :, :48, None].repeat(1, 1, 1, 3)
    model, positive, negative, vae, latent = DEMO.execute(photo, family).args
    assert latent["samples"].shape == (1, 3, 64, 48)

    def run(model: Any, cfg: float = 1.0) -> torch.Tensor:
        done = core.KSampler().sample(model, 3, 8, cfg, "euler", scheduler, positive, negative, latent)[0]
        return core.VAEDecode().decode(vae, done)[0]

    plain = run(model)
    assert plain.shape == photo.shape
    # The result is this photograph, and it is another one without the thumbnail.
    assert float((plain - photo).abs().mean()) < 0.05
    assert float((run(model, 2.0) - plain).abs().mean()) > 1e-3
    patched, ref = ON_MODEL.execute(model, 0.2, 0.5).args
    assert float((run(patched) - plain).abs().mean()) > 1e-4
    assert ref.run.masks
    # The latent is the picture.
    torch.testing.assert_close(core.VAEDecode().decode(vae, core.VAEEncode().encode(vae, photo)[0])[0], photo)


@pytest.mark.parametrize(
    ("size", "fits"), [((768, 768), (512, 512)), ((90, 50), (88, 48)), ((600, 1200), (360, 728))], ids=str
)
def test_the_demo_model_takes_photographs_of_any_size(size: tuple[int, int], fits: tuple[int, int]):
    latent = DEMO.execute(torch.rand(2, *size, 3), "ve").args[4]["samples"]
    assert latent.shape == (2, 3, *fits)
