"""All questions, one report: ``selective-sigma bench``.

Each question's figures are written as soon as it is done, and used again while the code, the
weights and the number of seeds stay what they were.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import subprocess
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.progress import Progress

from selective_sigma import __version__
from selective_sigma.demo import pipeline

from . import (
    beginning,
    cfg_pp,
    cost,
    hallucination,
    mask_truth,
    overhead,
    schedule_curve,
    selectivity,
    side_effects,
    strength,
    words,
)
from .study import Study

QUESTIONS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        selectivity,
        hallucination,
        side_effects,
        mask_truth,
        cost,
        cfg_pp,
        schedule_curve,
        beginning,
        strength,
        overhead,
    )
}
ROOT = Path(__file__).resolve().parent.parent
Inputs = dict[str, dict[str, Any]]
"""What each question's figures depend on."""
SHARED = ("exact", "figures", "methods", "models", "run", "samplers", "study")
"""Files here on which every question's figures depend."""


def run_all(out: Path, only: list[str], seeds: int, bar: Progress) -> Path:
    """Answer what is not yet answered and write the report.

    Args:
        out: folder of report.md, report.json and a plot for each question.
        only: questions to answer anew; the report still shows the others that are there.
        seeds: seeds that a figure is averaged over.

    Raises:
        ValueError: for an unknown question.
    """
    unknown = [name for name in only if name not in QUESTIONS]
    if unknown:
        raise ValueError(f"unknown question {', '.join(unknown)}: choose from {', '.join(QUESTIONS)}")
    out.mkdir(parents=True, exist_ok=True)
    study = Study(seeds)
    # Once, at the start: files may be edited while this runs on what it has loaded.
    known = {name: inputs(name, seeds) for name in QUESTIONS}
    wanted = [name for name in QUESTIONS if (name in only if only else _load(out, name, known) is None)]
    try:
        for name in wanted:
            _answer(out, name, known, study, bar)
    finally:
        # Interrupted or failed, what is finished is shown.
        report = write(out, known, seeds)
    return report


def _answer(out: Path, name: str, known: Inputs, study: Study, bar: Progress) -> None:
    module, task = QUESTIONS[name], bar.add_task(QUESTIONS[name].TITLE, total=None)

    def track(items: Any) -> Any:
        bar.update(task, total=(bar.tasks[task].total or 0) + len(items))
        for item in items:
            yield item
            bar.advance(task)

    began, before = time.monotonic(), study.evaluations
    data = module.measure(study, track)
    done = {
        "inputs": known[name],
        "where": where(),
        "seconds": round(time.monotonic() - began, 1),
        "evaluations": study.evaluations - before,
        "data": data,
    }
    part = out / f"{name}.part"
    part.write_text(json.dumps(done))
    part.replace(out / f"{name}.json")


def _load(out: Path, name: str, known: Inputs) -> dict[str, Any] | None:
    """What was found before from equal inputs."""
    try:
        done = json.loads((out / f"{name}.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return done if done.get("inputs") == known[name] else None


def inputs(name: str, seeds: int) -> dict[str, Any]:
    """All that a question's figures depend on."""
    core = sorted((ROOT / "selective_sigma").glob("*.py"))
    demo = sorted((ROOT / "selective_sigma" / "demo").glob("*.py"))
    own = [ROOT / "benchmarks" / f"{file}.py" for file in (*SHARED, name)]
    code = hashlib.sha256()
    for file in [*core, *demo, *own]:
        if file.name not in ("cli.py", "show.py", "sweep.py", "figure.py", "source.py"):
            code.update(file.read_bytes())
    weights = hashlib.sha256(pipeline.WEIGHTS.read_bytes()).hexdigest()
    return {"code": code.hexdigest()[:16], "weights": weights[:16], "seeds": seeds, "torch": torch.__version__}


def where() -> dict[str, Any]:
    """Machine and commit."""
    return {
        "machine": _cpu(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "version": __version__,
        "commit": _commit(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return f"{names[0]}, {len(names)} logical cores"
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "selective_sigma", "benchmarks")
        return git("rev-parse", "--short", "HEAD") + (" with uncommitted changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write(out: Path, known: Inputs, seeds: int) -> Path:
    """The report from what is answered: Markdown, plots, and all figures as JSON."""
    found = {name: done for name in QUESTIONS if (done := _load(out, name, known))}
    targets = {name: QUESTIONS[name].targets(done["data"]) for name, done in found.items()}
    parts = ["# Evidence", _preface(found, seeds)]
    for name, done in found.items():
        module = QUESTIONS[name]
        module.plot(done["data"], out / f"{name}.png")
        parts += [f"## {module.TITLE}", f"{module.__doc__}", f"![{module.TITLE}]({name}.png)"]
        parts.append(module.describe(done["data"]))
    parts += ["## Targets", "Computed from the tables above, not asserted."]
    rows = [("met" if t.met else "**not met**", t.what, t.found) for each in targets.values() for t in each]
    parts.append(words.table(["", "target or rule", "found"], rows) if rows else "Nothing measured yet.")
    missing = [QUESTIONS[name].TITLE for name in QUESTIONS if name not in found]
    if missing:
        parts.append(f"Not answered yet: {', '.join(missing)}. The same command continues.")
    (out / "report.md").write_text("\n\n".join(parts) + "\n")
    listed = [t._asdict() for each in targets.values() for t in each]
    (out / "report.json").write_text(json.dumps(_plain({"questions": found, "targets": listed}), indent=1))
    return out / "report.md"


def _preface(found: dict[str, dict[str, Any]], seeds: int) -> str:
    where = [done["where"] for done in found.values()]
    machines = dict.fromkeys(
        f"{w['machine']}; Python {w['python']}, torch {w['torch']}, {w['threads']} threads; version {w['version']}."
        for w in where
    )
    commits = dict.fromkeys(w["commit"] for w in where)
    lines = [*machines, f"Commits: {', '.join(commits)}."]
    facts = ", ".join(f"{name} {value}" for name, value in pipeline.facts(pipeline.WEIGHTS).items())
    seconds, pictures = (sum(done[key] for done in found.values()) for key in ("seconds", "evaluations"))
    return "\n\n".join(
        [
            "What this repository claims, measured. Made by `selective-sigma bench`.",
            *lines,
            f"The embedded network (64x64 pictures) is small: its figures rank methods and promise nothing about "
            f"large models. Its training: {facts}. {seeds} seeds; {pictures} pictures denoised in {seconds:.0f} s.",
        ]
    )


def _plain(value: Any) -> Any:
    """NaN becomes null: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
