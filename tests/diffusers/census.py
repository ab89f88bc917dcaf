"""Runs the pipelines of diffusers' own tests with detail, and checks each; the compatibility page has the table.

    git clone https://github.com/huggingface/diffusers
    pip install ftfy opencv-python-headless parameterized requests_mock     # what diffusers' tests import
    python -m tests.diffusers.census diffusers --out out/pipelines.jsonl      # goes on where it was stopped
    python -m tests.diffusers.census diffusers --out out/pipelines.jsonl --page

For each pipeline these are checked, without what the adapter has learned of it:

- mask zeros is the bare pipeline, bit for bit;
- coverage 1 costs no call, or is refused where a model answers for more than the picture;
- the lied pass has nine tenths of the noise to signal, by the sample's scale and by the argument that differs;
- the answer to the lie comes back to the pipeline as the true level would have it;
- the mask has one value for each place of the latent.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import math
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from selective_sigma.diffusers import detail

from . import hub
from .census_checks import check_answer, check_effect, check_grid, check_noise
from .census_page import read, write, write_page
from .census_watch import Watch, WrongError, leaves

STEPS = 4
SECONDS = 240
"""For one pipeline, all of its runs."""


def result_of(output: Any) -> torch.Tensor:
    tensors = list(leaves(output if isinstance(output, (dict, list, tuple)) else vars(output)).values())
    values = [torch.as_tensor(v).double() for v in tensors if not isinstance(v, str) and hasattr(v, "shape")]
    if not values:
        raise hub.AbsentError("a result that is no tensor")
    return torch.cat([f.flatten() for f in values])


def build(test: Any, plainly: int) -> tuple[Any, dict[str, Any]]:
    """A fresh pipeline and its inputs: the test's own, with latents for a result and few steps.

    Args:
        plainly: 1 leaves the result as it is, 2 the number of steps as well.
    """
    torch.manual_seed(0)
    taken = inspect.signature(test.pipeline_class.__call__).parameters
    adapter = {"adapter_type": "full_adapter"}
    needed = inspect.signature(test.get_dummy_components).parameters.items()
    pipe = test.pipeline_class(
        **test.get_dummy_components(**{n: adapter[n] for n, p in needed if p.default is p.empty})
    )
    pipe.set_progress_bar_config(disable=True)
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval()
    device = {"device": "cpu"} if "device" in inspect.signature(test.get_dummy_inputs).parameters else {}
    inputs = test.get_dummy_inputs(**device)
    if "num_inference_steps" in taken and plainly < 2:
        share = inputs.get("strength") or 1.0
        inputs["num_inference_steps"] = math.ceil(STEPS / share) if 0 < share <= 1 else STEPS
    if "output_type" in taken and plainly < 1:
        inputs["output_type"] = "latent"
    return pipe, inputs


def look(test: Any) -> tuple[str, str]:
    """Checks the pipeline of one test class: (right, refused or nothing; the reason or the counts)."""
    plainly = 0
    pipe, _ = build(test, plainly)
    state = {
        name: {k: v.clone() for k, v in part.state_dict().items()}
        for name, part in pipe.components.items()
        if isinstance(part, torch.nn.Module)
    }

    def call(watch: Watch | None = None, **settings: Any) -> tuple[torch.Tensor, Any, Any]:
        fresh, inputs = build(test, plainly)
        for name, values in state.items():
            getattr(fresh, name).load_state_dict(values)
        torch.manual_seed(0)
        if not settings:
            return result_of(fresh(**inputs)), fresh, None
        with detail(fresh, **settings) as run:
            if watch is None:
                return result_of(fresh(**inputs)), fresh, run
            watch._pipe = fresh
            with watch:
                return result_of(fresh(**inputs)), fresh, run

    for plainly in range(3):
        try:
            bare, pipe, _ = call()
            break
        except ValueError:
            if plainly == 2:
                raise
    plain, everywhere = Watch(pipe), Watch(pipe)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            zeros, pipe, run = call(plain, strength=0.1, start=0.0, every=1, mask_override="zeros")
        except (TypeError, ValueError) as error:
            if any(words in str(error) for words in ("Selective Sigma", "is not supported", "without a scheduler")):
                return "refused", " ".join(str(error).split())
            raise
    if not torch.equal(zeros.nan_to_num(), bare.nan_to_num()):
        if not torch.equal(call()[0].nan_to_num(), bare.nan_to_num()):
            return "not run", "the bare pipeline differs from itself"
        raise WrongError("mask zeros is not the bare pipeline")
    if not run.report.lied:
        words = [str(w.message) for w in caught if "added nothing" in str(w.message)]
        return "nothing", words[0] if words else str(run.report)
    note = check_everywhere(call, everywhere, bare)
    if note is None:
        return "nothing", "coverage 1 changes nothing"
    chosen = Watch(pipe)
    usual, pipe, run = call(chosen, strength=0.1, start=0.0, every=1, record=True)
    if torch.equal(usual.nan_to_num(), bare.nan_to_num()):
        note += check_black(run)
    if bool(bare.isfinite().all()) and not bool(usual.isfinite().all()):
        raise WrongError("the result is not finite")
    check_effect(chosen)
    check_noise(pipe, plain.pairs)
    if "refused" not in note:
        check_answer(pipe, plain, everywhere)
    # Wan Animate sets its timesteps once more at the end, and what was learned of it is gone.
    learned = run._tracker._learned
    sample = learned and torch.zeros(1, *learned.forms[0].sample.region.shape)
    note += check_grid(pipe, run, sample) if learned else ", grid not looked at"
    return "right", f"{run.report.steps} model calls, {run.report.lied} lied{note}"


def check_everywhere(call: Any, watch: Watch, bare: torch.Tensor) -> str | None:
    """Runs at coverage 1, under ``watch``. Returns a note, or None if that changes nothing."""
    try:
        result, _, run = call(watch, strength=0.1, start=0.0, every=1, coverage=1.0)
    except ValueError as error:
        if "give coverage below 1" not in str(error):
            raise
        return ", coverage 1 is refused"
    if run.report.calls != run.report.steps:
        raise WrongError("coverage 1 costs more calls")
    return None if torch.equal(result.nan_to_num(), bare.nan_to_num()) else ""


def check_black(run: Any) -> str:
    """Raises ``WrongError`` unless all masks are black: of a latent of few places, or answers without structure."""
    if any(float(record.mask.max()) > 1e-3 for record in run.masks):
        raise WrongError("the default settings change nothing")
    return ", a black mask"


def tests_of(module: Any) -> dict[str, Any]:
    """The classes of a test file that build a pipeline, one for each pipeline."""
    kinds: dict[str, Any] = {}
    for name, kind in vars(module).items():
        if not inspect.isclass(kind) or kind.__module__ != module.__name__:
            continue
        needed = ("get_dummy_components", "get_dummy_inputs", "pipeline_class")
        if all(hasattr(kind, each) for each in needed) and not isinstance(kind.pipeline_class, property):
            components = kind.get_dummy_components
            if all(components is not other.get_dummy_components for other in kinds.values()):
                kinds[name] = kind
    return kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("diffusers", type=Path, help="a checkout of diffusers, whose tests are run")
    parser.add_argument("--out", type=Path, default=Path("out/pipelines.jsonl"))
    parser.add_argument("--only", default="", help="a part of the test files' paths")
    parser.add_argument("--reverse", action="store_true", help="begin at the end, beside one that begins at the front")
    parser.add_argument("--page", action="store_true", help="write the table of the compatibility page, run nothing")
    options = parser.parse_args()
    rows = read(options.out)
    if options.page:
        write_page(rows)
        return
    package_of(options.diffusers / "tests")
    signal.signal(signal.SIGALRM, _late)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    root = options.diffusers / "tests" / "pipelines"
    for path in sorted(root.glob("*/test_*.py"), reverse=options.reverse):
        file = str(path.relative_to(root))
        if options.only not in file:
            continue
        done = {(row["file"], row["test"]) for row in read(options.out)}
        for name, kind in opened(path, file, done, options.out).items():
            if (file, name) not in done:
                pipeline = getattr(kind.pipeline_class, "__name__", str(kind.pipeline_class))
                write(options.out, file, name, pipeline, *looked_at(kind))


def package_of(tests: Path) -> None:
    """Have diffusers' tests be importable, beside ours, and run without the hub."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    hub.stand_in()
    spec = importlib.util.spec_from_file_location(
        "diffusers_tests",
        tests / "__init__.py",
        submodule_search_locations=[str(tests)],
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["diffusers_tests"] = package
    spec.loader.exec_module(package)
    # Some of the tests import others by the package's name in its own checkout.
    for name in ("pipelines", "pipelines.test_pipelines_common"):
        sys.modules[f"tests.{name}"] = importlib.import_module(f"diffusers_tests.{name}")


def opened(path: Path, file: str, done: set[tuple[str, str]], out: Path) -> dict[str, Any]:
    try:
        return tests_of(importlib.import_module(f"diffusers_tests.pipelines.{path.parent.name}.{path.stem}"))
    except Exception as error:
        if (file, "") not in done:
            write(out, file, "", "", "not run", f"{type(error).__name__}: {error}")
        return {}


def looked_at(kind: Any) -> tuple[str, str]:
    """What ``look`` says, or why it could not."""
    try:
        signal.alarm(SECONDS)
        return look(kind())
    except WrongError as error:
        return "wrong", str(error)
    except TimeoutError:
        return "not run", f"takes more than {SECONDS} s"
    except Exception as error:
        return "not run", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)


def _late(*_: object) -> None:
    raise TimeoutError


if __name__ == "__main__":
    main()
