"""The command line as a person uses it, on the embedded network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from selective_sigma import cli
from selective_sigma.demo import photos, sweep

QUICK = ["--strength", "0,0.2", "--coverage", "0.5,1", "--steps", "5"]


def call(*args: str):
    return CliRunner().invoke(cli.app, list(args))


def test_sweep_writes_cells_figure_and_json(tmp_path: Path):
    done = call("sweep", *QUICK, "--out", str(tmp_path), "--json")
    assert done.exit_code == 0, done.output
    cells = json.loads(done.stdout)["cells"]
    # Five long steps, each on its own: four are active, with two calls or one; the plain sampler makes five.
    assert [(c["strength"], c["coverage"], c["calls"]) for c in cells] == [
        (0, 0.5, 5),
        (0, 1, 5),
        (0.2, 0.5, 9),
        (0.2, 1, 5),
    ]
    assert (tmp_path / "s+0.200_c0.500_mask.png").is_file()
    with Image.open(tmp_path / "sweep.png") as figure:
        assert figure.width > 2 * 256
        assert figure.height > 4 * 256
    with (
        Image.open(tmp_path / "s+0.000_c0.500.png") as plain,
        Image.open(tmp_path / "s+0.000_c1.000.png") as same,
        Image.open(tmp_path / "s+0.200_c0.500.png") as detailed,
    ):
        assert plain.tobytes() == same.tobytes() != detailed.tobytes()


def test_a_stopped_sweep_keeps_its_cells_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compute, made = sweep.compute, []

    def stops_at_the_third(*args):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(args[-1])
        return compute(*args)

    monkeypatch.setattr(sweep, "compute", stops_at_the_third)
    stopped = call("sweep", *QUICK, "--out", str(tmp_path))
    assert stopped.exit_code == 130
    assert "2 of 4 cells" in " ".join(stopped.stderr.split())
    assert len(list(tmp_path.glob("*.json"))) == 2
    made.clear()
    monkeypatch.setattr(sweep, "compute", lambda *args: made.append(args[-1]) or compute(*args))
    assert call("sweep", *QUICK, "--out", str(tmp_path)).exit_code == 0
    assert len(made) == 2
    # Another seed is another job: nothing of this one is taken for it.
    made.clear()
    assert call("sweep", *QUICK, "--seed", "8", "--out", str(tmp_path)).exit_code == 0
    assert len(made) == 4


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--strength", "nan"], "strength"),
        (["--strength", "a,b"], "--strength 0,0.1,0.2"),
        (["--coverage", "2"], "coverage"),
        (["--sampler", "best"], "dpmpp_2m"),
        (["--flow", "--sampler", "ddim"], "rectified-flow"),
        (["--photo", "dog"], "astronaut"),
        (["--model", "/nowhere"], "model_index.json"),
        (["--mask-source", "luck"], "response"),
    ],
)
def test_bad_input_names_setting_and_remedy(args: list[str], said: str, tmp_path: Path):
    done = call("sweep", *args, "--out", str(tmp_path / "out"))
    assert done.exit_code == 2
    # Rich wraps what it prints in a box.
    assert said.replace(" ", "") in "".join(done.stderr.split()).replace("│", "")
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("args", [["--sampler", "dpmpp_sde"], ["--flow"], ["--flow", "--sampler", "dpmpp_2m"]])
def test_other_samplers_and_flow(args: list[str], tmp_path: Path):
    done = call("sweep", "--strength", "0.1", "--coverage", "0.5", "--steps", "5", *args, "--out", str(tmp_path))
    assert done.exit_code == 0, done.output


def test_two_processes_share_the_cells_and_equal_one(tmp_path: Path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    launch = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    launch += " --dynamo_backend no --main_process_port 0 -m selective_sigma"
    outs = tmp_path / "one", tmp_path / "two"
    said = []
    for out, start in zip(outs, ("selective_sigma", launch), strict=True):
        command = [sys.executable, "-m", *start.split(), "sweep", *QUICK, "--out", str(out)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stderr)
    assert "process 1" in said[1]
    assert "process 1" not in said[0]
    names = sorted(path.name for path in outs[0].glob("*.png"))
    assert len(names) == 9
    for name in names:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()


def test_demo_draws_a_photograph_of_ones_own_and_says_what_it_cost(tmp_path: Path):
    photos.open_photo("chelsea").crop((100, 0, 300, 120)).save(tmp_path / "my cat.png")
    done = call(
        "demo", "--photo", str(tmp_path / "my cat.png"), "--out", str(tmp_path / "out"), "--steps", "6", "--json"
    )
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert [Path(p).stem for p in shown["pictures"]] == ["my cat", "coverage_sweep", "strength_sweep"]
    assert all(Path(path).stat().st_size > 10_000 for path in shown["pictures"])
    page = Path(shown["page"]).read_text(encoding="utf-8")
    assert page.count("<option") == 8
    assert page.count('src="data:image/png;base64,') == page.count('src="') == 6
    assert "href" not in re.sub('base64,[^"]*', "", page)
    plain, everywhere, selective = shown["rows"]
    assert [row["method"] for row in shown["rows"]] == ["plain", "everywhere", "selective"]
    assert plain["calls"] == everywhere["calls"] == 6 < selective["calls"]
    assert selective["inside"] > 1.02 * plain["inside"]
    assert selective["inside"] == pytest.approx(everywhere["inside"], rel=0.1)
    assert selective["outside"] < everywhere["outside"]


def test_demo_refuses_what_is_no_picture(tmp_path: Path):
    (tmp_path / "words.txt").write_text("no picture")
    done = call("demo", "--photo", str(tmp_path / "words.txt"), "--out", str(tmp_path / "out"))
    assert done.exit_code == 2
    assert "isnopicture:give" in "".join(done.stderr.split()).replace("│", "")
    assert not (tmp_path / "out").exists()
