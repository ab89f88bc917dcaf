"""The whole report at the smallest size, on a network that answers at once."""

import json
from pathlib import Path

import pytest
import torch
from rich.progress import Progress
from safetensors.torch import save_file

from benchmarks import cfg_pp, cost, mask_truth, models, overhead, report, selectivity, side_effects, strength
from selective_sigma.demo import pipeline


class Stub:
    """In place of the network: v of a unit Gaussian, with ripples where the region map is lit."""

    def __call__(self, x, t, labels, region, return_dict=False):
        return (0.3 * torch.sin(5 * x) * (region.clamp(min=0) + 0.1),)


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "unet", Stub)
    weights = tmp_path / "weights.safetensors"
    save_file({"w": torch.zeros(1)}, weights, {"steps": "10"})
    monkeypatch.setattr(pipeline, "WEIGHTS", weights)
    for module in report.QUESTIONS.values():
        if hasattr(module, "SAMPLERS"):
            monkeypatch.setattr(module, "SAMPLERS", ("euler", "euler_ancestral"))
    monkeypatch.setattr(side_effects, "STEPS", 8)
    monkeypatch.setattr(selectivity, "STEPS", 8)
    monkeypatch.setattr(cfg_pp, "STEPS", (8, 12))
    monkeypatch.setattr(strength, "CELLS", [("ve", "euler", m) for m in strength.METHODS])
    monkeypatch.setattr(overhead, "SHAPES", ((1, 4, 32, 32),))
    monkeypatch.setattr(overhead, "ROUNDS", 1)
    monkeypatch.setattr(cost, "STEPS", (8, 20))
    monkeypatch.setattr(cost, "REFRESH", (cost.Settings().refresh, 1.2))
    monkeypatch.setattr(mask_truth, "PLACES", [("euler", 20), ("euler_ancestral", 6)])
    monkeypatch.setattr(selectivity, "OTHER_STEPS", (6,))
    monkeypatch.setattr(strength, "STEPS", (8, 20))
    return tmp_path / "out"


def run(out, only=(), seeds=1):
    with Progress(disable=True) as bar:
        return report.run_all(out, list(only), seeds, bar)


def test_one_question_leaves_the_rest_open(small):
    text = run(small, ["schedule_curve"]).read_text()
    assert "Not answered yet: Selectivity" in text
    assert (small / "schedule_curve.png").stat().st_size > 5000


def test_every_question_end_to_end(small):
    text = run(small).read_text()
    for name, module in report.QUESTIONS.items():
        assert f"## {module.TITLE}" in text
        assert (small / f"{name}.png").stat().st_size > 5000
    assert "Not answered yet" not in text
    assert "nan" not in text.lower()
    found = json.loads((small / "report.json").read_text(), parse_constant=pytest.fail)
    assert set(found["questions"]) == set(report.QUESTIONS)
    assert all(set(t) == {"what", "found", "met"} for t in found["targets"])


def test_finished_questions_are_kept_and_interruptions_reported(small, monkeypatch):
    run(small, ["schedule_curve"])
    asked = []

    def interrupt(study, track):
        asked.append(study)
        raise KeyboardInterrupt

    for name, module in report.QUESTIONS.items():
        if name != "schedule_curve":
            monkeypatch.setattr(module, "measure", interrupt)
    before = (small / "schedule_curve.json").read_text()
    (small / "report.md").unlink()
    with pytest.raises(KeyboardInterrupt):
        run(small)
    assert len(asked) == 1
    assert (small / "schedule_curve.json").read_text() == before
    assert "## Schedule" in (small / "report.md").read_text()
    with pytest.raises(KeyboardInterrupt):
        run(small, seeds=2)
    assert "## Schedule" not in (small / "report.md").read_text()


def test_unknown_questions_are_named(small: Path):
    with pytest.raises(ValueError, match="colour_blindness"):
        run(small, ["colour_blindness"])
