"""The nodes and their pictures, without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import folder_paths
import pytest
import tiny
import torch
from server_process import REPOSITORY

from selective_sigma.comfy.nodes import duplicate_pack, nodes, preview, preview_node, widgets, words
from selective_sigma.comfy.run.capture import Capture
from selective_sigma.detailer import MaskRecord
from selective_sigma.report import Reason, Report
from selective_sigma.settings import SETTING_NAMES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("temp_folder")


@pytest.mark.parametrize("values", [{"strength": 0.0, "coverage": 0.5}, {"strength": 0.1, "coverage": 0.0}], ids=str)
def test_idle_settings_return_the_input_itself(values: dict[str, float]):
    bare = tiny.sampler()
    assert nodes.SelectiveSigmaDetailerNode.execute(bare, **values)[0] is bare
    assert nodes.SelectiveSigmaDetailerModelNode.execute(bare, **values)[0] is bare
    same, ref, _ = nodes.SelectiveSigmaDetailerDebugNode.execute(bare, **values).args
    assert same is bare
    picture = nodes.SelectiveSigmaDetailerMaskPreviewNode.execute({"samples": torch.zeros(2, 4, 16, 24)}, ref)[1]
    assert torch.equal(picture, preview.message(words.NO_DETAIL.format(Reason.IDLE.text)))


def test_the_debug_node_takes_what_the_published_graph_gives():
    published = dict(zip(SETTING_NAMES, (0.1, 0.5, 0.1, 0.9, 0.9, 0.2, "off"), strict=False))
    assert tuple(published) == widgets.PUBLISHED
    bare = tiny.sampler()
    wrapped, ref, _ = nodes.SelectiveSigmaDetailerDebugNode.execute(bare, **published).args
    assert wrapped is not bare
    assert isinstance(ref, Capture)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"strength": float("nan")}, "strength is nan: give a number from -1 to 1"),
        ({"coverage": 1.5}, "coverage is 1.5"),
        ({"start": 0.9, "end": 0.2}, "start must lie before end"),
        ({"lie": "three"}, "choose one of noise_to_signal, fixed_input"),
        ({"every": 0}, "give a whole number from 1 to 8"),
        ({"mask": torch.zeros(1, 1, 2, 3, 4)}, "connect a MASK"),
        ({"mask": torch.full((1, 4, 4), float("inf"))}, "values from 0 to 1"),
    ],
    ids=str,
)
def test_bad_values_are_refused_before_sampling(values: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        nodes.SelectiveSigmaDetailerDebugNode.execute(tiny.sampler(), **values)


@pytest.mark.parametrize("shape", [(8, 6), (1, 8, 6), (3, 8, 6)], ids=str)
def test_a_mask_of_any_form_becomes_a_limit(shape: tuple[int, ...]):
    limit = nodes.limit_from(torch.full(shape, 2.0))
    assert limit.shape == (shape[0] if len(shape) == 3 else 1, 1, 8, 6)
    assert limit.max() == 1


def test_the_preview_refuses_another_packs_reference():
    with pytest.raises(TypeError, match=r"mask_ref is a dict: connect mask_ref of Selective Sigma Detailer \(Debug\)"):
        nodes.SelectiveSigmaDetailerMaskPreviewNode.execute({"samples": torch.zeros(1, 4, 8, 8)}, {})


def test_the_preview_shows_the_run_that_made_the_latent():
    ref = Capture()
    first, second = torch.randn(2, 1, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    ref.store([MaskRecord(i, 3.0 - i, 0.1, torch.full((1, 1, 32, 32), i / 2)) for i in range(3)], Report(), [first])
    ref.store([MaskRecord(0, 1.0, 0.1, torch.full((1, 1, 32, 32), 0.25))], Report(), [second])
    latent = {"samples": first}
    result = nodes.SelectiveSigmaDetailerMaskPreviewNode.execute(latent, ref, "every step")
    assert result[0] is latent
    assert [float(picture[:256].mean()) for picture in result[1]] == [0.0, 0.5, 1.0]
    assert len(result.ui.as_dict()["images"]) == 3
    picture = nodes.SelectiveSigmaDetailerMaskPreviewNode.execute({"samples": second}, ref)[1]
    assert float(picture[:, :256].mean()) == 0.25


@pytest.mark.parametrize("case", ["bypassed", "not the sampler's", "short", "no reference"])
def test_the_preview_says_why_there_is_no_mask(case: str, monkeypatch: pytest.MonkeyPatch):
    messages: list[str] = []
    monkeypatch.setattr(preview_node, "message", lambda text: messages.append(text) or preview.message(text))
    levels = tiny.schedule(tiny.model(), 10)
    settings = {"start": 0.9} if case == "short" else {}
    wrapped, ref, _ = nodes.SelectiveSigmaDetailerDebugNode.execute(tiny.sampler(), **settings).args
    if case == "bypassed":
        done, wanted = tiny.sample(tiny.model(), tiny.sampler(), levels), words.BYPASSED
    else:
        done = tiny.sample(tiny.model(), wrapped, levels[:4] if case == "short" else levels)
        wanted = words.NO_DETAIL.format(Reason.WINDOW.text)
    if case == "not the sampler's":
        done, wanted = done + 1, words.OTHER_LATENT
    if case == "no reference":
        ref, wanted = None, words.BYPASSED
    picture = nodes.SelectiveSigmaDetailerMaskPreviewNode.execute({"samples": done}, ref)[1]
    assert messages == [wanted]
    assert picture.max() == 1  # There is text.


@pytest.mark.parametrize(
    ("space", "steps", "timeline"),
    [((64,), (12, 32, 512), 2), ((16, 24), (12, 160, 240), 2), ((3, 8, 8), (36, 256, 256), 6)],
    ids=["sound", "image", "video"],
)
def test_a_run_from_the_debug_node_to_the_pictures(space: tuple[int, ...], steps: tuple[int, ...], timeline: int):
    model = tiny.model(axes=len(space))
    half = torch.zeros(1, 32, 32)
    half[..., :16] = 1
    wrapped, ref, _ = nodes.SelectiveSigmaDetailerDebugNode.execute(tiny.sampler(), mask=half).args
    done = tiny.sample(model, wrapped, tiny.schedule(model, 10), shape=(2, tiny.CHANNELS, *space))
    show = nodes.SelectiveSigmaDetailerMaskPreviewNode.execute
    latent, pictures, mask = show({"samples": done}, ref, "every step").args
    pictures = pictures[:, : steps[1]]
    # The MASK is as large as the decoded picture. The pictures of the mask may have another size.
    size = steps[1:] if len(space) == 1 else [8 * side for side in space[-2:]]
    assert mask.shape == (steps[0] // 6, *size)
    assert latent["samples"] is done
    assert len(ref.run.masks) == 6
    assert (len(pictures), *pictures.shape[1:3]) == (steps[0], *steps[1:])
    # Detail only where the mask allows it: at the left.
    middle = pictures.shape[2] // 2
    assert float(pictures[:, :, :middle].std()) > 0.05
    assert not pictures[:, :, middle + pictures.shape[2] // space[-1] :].any()
    assert len(show({"samples": done}, ref, "timeline")[1]) == timeline
    picture = torch.rand(6 if len(space) == 3 else 2, 64, 64, 3)
    assert show({"samples": done}, ref, "average", picture)[1][:, :64].shape == picture.shape


def test_a_pack_with_the_same_nodes_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """As the first published pack does. ComfyUI itself does not warn."""
    others = {
        "theirs": "{'SelectiveSigmaDetailerNode': 1}",
        "off.disabled": '{"SelectiveSigmaDetailerNode": 1}',
        "no": "{}",
    }
    for name, mapping in others.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"NODE_CLASS_MAPPINGS = {mapping}\n")
    (tmp_path / "ours").symlink_to(REPOSITORY)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "custom_nodes", ([str(tmp_path)], set()))
    duplicate_pack.duplicate_warning.cache_clear()
    try:
        (warning,) = {duplicate_pack.duplicate_warning() for _ in range(2)}
        assert str(tmp_path / "theirs") in warning
        assert str(REPOSITORY) in warning
        assert [record.getMessage() for record in caplog.records] == [f"Selective Sigma: {warning}"]
        assert widgets.node_schema(node_id="x", description="What it does.").description == f"What it does. {warning}"
        (tmp_path / "theirs").rename(tmp_path / "theirs.disabled")
        duplicate_pack.duplicate_warning.cache_clear()
        assert not duplicate_pack.duplicate_warning()
    finally:
        duplicate_pack.duplicate_warning.cache_clear()
