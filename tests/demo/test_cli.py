"""The command line as a person uses it, on the embedded network."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from selective_sigma import __version__, cli
from selective_sigma.demo import NAMES, photos, show, sweep, terminal
from selective_sigma.demo.samplers import FLOW, VE
from selective_sigma.settings import Settings

QUICK = ["--strength", "0,0.2", "--coverage", "0.5,1", "--steps", "5"]


def call(*args: str):
    return CliRunner().invoke(cli.app, list(args))


def test_pictures_are_drawn_at_the_strength_that_we_advise():
    assert inspect.signature(cli.demo).parameters["strength"].default == Settings.strength == 0.1
    assert inspect.signature(cli.sweep).parameters["strength"].default == "0,0.05,0.1,0.15"
    assert show.STRENGTHS == (-0.1, 0.0, 0.05, 0.1, 0.15)
    # No face of a real person is drawn unasked.
    assert show.PHOTOS == ("wren", "chelsea")


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
    assert (tmp_path / "s+0.2_c0.5_mask.png").is_file()
    with Image.open(tmp_path / "sweep.png") as figure:
        assert figure.width > 2 * 256
        assert figure.height > 4 * 256
    # Strength 0 is one picture, whatever the coverage.
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["plain.json", "s+0.2_c0.5.json", "s+0.2_c1.0.json"]
    with Image.open(tmp_path / "plain.png") as plain, Image.open(tmp_path / "s+0.2_c0.5.png") as detailed:
        assert plain.tobytes() != detailed.tobytes()


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[sweep.Cell]:
    """The cells that are computed, without being sampled."""
    cells: list[sweep.Cell] = []

    def compute(*args):
        cells.append(args[-1])
        return sweep.Result(Image.new("RGB", (8, 8)), Image.new("L", (8, 8)), {"calls": 5, "plain": 5, "lied": 0})

    monkeypatch.setattr(sweep, "compute", compute)
    return cells


def test_a_stopped_sweep_keeps_its_cells_and_goes_on(tmp_path: Path, computed, monkeypatch: pytest.MonkeyPatch):
    compute = sweep.compute

    def stops_at_the_third(*args):
        if len(computed) == 2:
            raise KeyboardInterrupt
        return compute(*args)

    monkeypatch.setattr(sweep, "compute", stops_at_the_third)
    stopped = call("sweep", *QUICK, "--out", str(tmp_path))
    assert stopped.exit_code == 130
    assert stopped.stderr.splitlines()[-1].startswith(f"Stopped. 2 of 3 pictures are in {tmp_path};")
    assert len(list(tmp_path.glob("*.json"))) == 2
    monkeypatch.setattr(sweep, "compute", compute)
    assert call("sweep", *QUICK, "--out", str(tmp_path)).exit_code == 0
    assert [cell.name for cell in computed] == ["plain", "s+0.2_c0.5", "s+0.2_c1.0"]


@pytest.mark.usefixtures("computed")
def test_a_folder_holds_one_sweep(tmp_path: Path):
    assert call("sweep", *QUICK, "--out", str(tmp_path)).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = call("sweep", *QUICK[:-1], "6", "--seed", "8", "--out", str(tmp_path))
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        f"selective-sigma: {tmp_path} holds a sweep with steps 5, seed 11: "
        "give the one with steps 6, seed 8 another --out"
    ]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--strength", "nan"], "strength is nan: give a number from -1 to 1"),
        (["--strength", "a,b"], "--strength 0,0.05,0.1"),
        (["--coverage", "2"], "coverage"),
        (["--guidance", "nan"], "guidance is nan: give a finite number"),
        (["--sampler", "best"], "dpmpp_2m"),
        (["--sampler", "own"], "give --model FOLDER"),
        (["--flow", "--sampler", "ddim"], "rectified-flow"),
        (["--photo", "dog"], "give a file, or one of wren"),
        (["--prompt", "a sky"], "give --model FOLDER"),
        (["--model", "/nowhere"], "model is '/nowhere': there is no such folder"),
        (["--model", "/nowhere", "--flow"], "--flow is for the embedded network"),
        (["--mask-source", "luck"], "response"),
    ],
)
def test_bad_input_names_setting_and_remedy(args: list[str], message: str, tmp_path: Path):
    done = call("sweep", *args, "--out", str(tmp_path / "out"))
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("index", ["{}", "[]", "no JSON"])
def test_what_is_no_checkpoint_is_refused_in_one_line(index: str, tmp_path: Path):
    (tmp_path / "model_index.json").write_text(index)
    done = call("sweep", "--model", str(tmp_path), "--prompt", "a sky", "--out", str(tmp_path / "out"))
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line == (
        f"selective-sigma: model is '{tmp_path}': give a diffusers checkpoint, whose model_index.json names a pipeline"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("computed")
def test_a_model_that_is_not_there_is_said_before_whose_folder_it_is(tmp_path: Path):
    assert call("sweep", *QUICK, "--out", str(tmp_path)).exit_code == 0
    done = call("sweep", "--model", "/nowhere", "--out", str(tmp_path))
    assert done.exit_code == 2
    assert "there is no such folder" in done.stderr


@pytest.mark.usefixtures("computed")
def test_a_table_is_whole_in_a_narrow_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wide = call("sweep", *QUICK, "--out", str(tmp_path)).stdout
    monkeypatch.setenv("COLUMNS", "20")
    narrow = call("sweep", *QUICK, "--out", str(tmp_path)).stdout
    # Only the title, which is centred, may stand elsewhere.
    assert narrow.splitlines()[-8:] == wide.splitlines()[-8:]
    assert "model calls" in narrow


def test_flags_have_no_type_in_the_help(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    for command in ("demo", "sweep"):
        text = call(command, "--help").stdout
        assert "<bool>" not in text
        assert "boolean" not in text.lower()
    assert "<bool>" not in call("--help").stdout


def test_a_second_interruption_still_says_where_things_are():
    script = """
import os, signal, time
from selective_sigma.demo.terminal import interruptions
with interruptions(lambda: "Stopped. 2 of 3 pictures are in out."):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(9)
    finally:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(9)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130
    assert done.stderr == "Stopped. 2 of 3 pictures are in out.\n"


def test_half_a_checkpoint_is_refused_in_one_line(tmp_path: Path):
    parts = {"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "EulerDiscreteScheduler"]}
    (tmp_path / "model_index.json").write_text(json.dumps(parts))
    done = call("sweep", "--model", str(tmp_path), "--prompt", "a sky", "--out", str(tmp_path / "out"))
    assert done.exit_code == 2
    assert f"selective-sigma: model is '{tmp_path}': give a whole diffusers checkpoint" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", ["demo", "sweep"])
@pytest.mark.parametrize("out", ["file", "file/below", "closed/below"])
def test_a_folder_that_cannot_be_had_is_refused_first(command: str, out: str, tmp_path: Path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("selective_sigma.demo.sample.Detailer", None)
    if out == "closed/below":
        # Root writes anywhere: what others meet is raised by hand.
        def closed(**_: object):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("tempfile.TemporaryFile", closed)
    done = call(command, "--out", str(tmp_path / out))
    assert done.exit_code == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"selective-sigma: out is '{tmp_path / out}', ")
    assert line.endswith(": give a folder that can be written to")


def test_version_and_help():
    assert call("--version").stdout == f"selective-sigma {__version__}\n"
    for command, names in (("sweep", [*VE, *FLOW, "own", *NAMES]), ("demo", NAMES)):
        text = call(command, "--help").stdout
        assert [name for name in names if name not in text] == []


def test_an_interrupted_demo_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object):
        raise KeyboardInterrupt

    monkeypatch.setattr("selective_sigma.demo.scene.redraw", interrupted)
    done = call("demo", "--out", str(tmp_path))
    assert done.exit_code == 130
    assert done.stderr.splitlines()[-1] == "Stopped."
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("args", [["--sampler", "dpmpp_sde"], ["--flow"], ["--flow", "--sampler", "dpmpp_2m"]])
def test_other_samplers_and_flow(args: list[str], tmp_path: Path):
    done = call("sweep", "--strength", "0.1", "--coverage", "0.5", "--steps", "5", *args, "--out", str(tmp_path))
    assert done.exit_code == 0, done.output


def test_two_processes_share_the_cells_and_equal_one(tmp_path: Path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    launch = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    launch += f" --dynamo_backend no --main_process_port {port} -m selective_sigma"
    outs = tmp_path / "one", tmp_path / "two"
    errors = []
    for out, start in zip(outs, ("selective_sigma", launch), strict=True):
        command = [sys.executable, "-m", *start.split(), "sweep", *QUICK, "--out", str(out)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        errors.append(done.stderr)
    assert "process 1" in errors[1]
    assert "process 1" not in errors[0]
    names = sorted(path.name for path in outs[0].glob("*.png"))
    assert len(names) == 7
    for name in names:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()


def test_demo_draws_a_photograph_of_ones_own_and_says_what_it_cost(tmp_path: Path):
    photos.open_photo("chelsea").crop((100, 0, 300, 120)).save(tmp_path / "my cat.png")
    before = (tmp_path / "my cat.png").read_bytes()
    done = call("demo", "--photo", str(tmp_path / "my cat.png"), "--out", str(tmp_path), "--steps", "6", "--json")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "my cat.png").read_bytes() == before
    result = json.loads(done.stdout)
    assert [Path(p).stem for p in result["pictures"]] == ["my cat_compared", "coverage_sweep", "strength_sweep"]
    assert all(Path(path).stat().st_size > 10_000 for path in result["pictures"])
    page = Path(result["page"]).read_text(encoding="utf-8")
    assert page.count("<option") == 8
    headings = re.findall("<h[12]>(.*?)</h", page)
    assert len(headings) == len(set(headings)) == 6
    # What a person came to see stands first.
    assert page.index('<figure class="compare"') < page.index("<table>") < page.index('<img class="figure"')
    # A sentence says what to see in each sweep, and every picture has words in its place.
    assert re.findall("<h2>(Coverage|Strength), at [^<]*</h2><p>[^<]*[.]</p>", page) == ["Coverage", "Strength"]
    alts = re.findall('<img[^>]* alt="([^"]*)"', re.sub('base64,[^"]*', "", page))
    assert len(alts) == 6
    assert all(alts)
    assert page.count('src="data:image/png;base64,') == page.count('src="') == 6
    assert "href" not in re.sub('base64,[^"]*', "", page)
    plain, everywhere, selective = result["rows"]
    assert [row["method"] for row in result["rows"]] == ["plain", "everywhere", "selective"]
    assert plain["calls"] == everywhere["calls"] == 6 < selective["calls"]
    assert selective["inside"] > 1.02 * plain["inside"]
    assert selective["inside"] == pytest.approx(everywhere["inside"], rel=0.03)
    assert all(f"<td>{row['inside']:.4f}</td>" in page for row in result["rows"])
    assert selective["outside"] < everywhere["outside"]


def test_words_in_a_pipe_are_not_wrapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    photos.open_photo("chelsea").crop((100, 0, 200, 60)).save(tmp_path / "cat.png")
    done = call("demo", "--photo", str(tmp_path / "cat.png"), "--out", str(tmp_path), "--steps", "2")
    assert done.exit_code == 0, done.output
    assert "where the lie was told, from everywhere (left) to nowhere (right)\n" in done.stdout


def test_a_terminal_shows_a_bar_before_anything_is_counted(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "stderr_console", Console(file=screen, force_terminal=True, width=80))
    with terminal.ProgressBar() as progress:
        progress.begin("loading torch")
        progress._bar.refresh()
        assert "loading torch" in screen.getvalue()
        progress.begin("pictures", 2)
        for _ in range(3):
            progress.advance()
    assert "3/3" in screen.getvalue()


def test_a_pipe_gets_a_line_for_each_picture(capsys: pytest.CaptureFixture[str]):
    with terminal.ProgressBar() as progress:
        progress.begin("pictures", 2)
        progress.advance()
        progress.advance()
    assert capsys.readouterr().err.splitlines() == ["pictures", "pictures: 1 of 2, 0 s", "pictures: 2 of 2, 0 s"]


def test_demo_refuses_what_is_no_picture(tmp_path: Path):
    (tmp_path / "words.txt").write_text("no picture")
    done = call("demo", "--photo", str(tmp_path / "words.txt"), "--out", str(tmp_path / "out"))
    assert done.exit_code == 2
    assert "is no picture: give" in done.stderr
    assert not (tmp_path / "out").exists()
