"""Tables made from the rows. They fill the blocks of a page; the text around a block stays as it is.

A block stands between ``<!-- figures: NAME -->`` and ``<!-- /figures -->``. ``BLOCKS`` has the names.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

from .evaluate import MAIN_MODELS, MAIN_SAMPLERS, PHOTOGRAPHS, QUESTIONS, STEP_COUNTS, STEPS, TARGET_GAIN, TRUE_PICTURE
from .figures import Effect, Provenance, Row, Value
from .methods import OURS, PUBLISHED, TRUE_REGION
from .samplers import FLOW, VE

PAGES = ("docs/evidence.md", "README.md")
BLOCK = re.compile(r"(<!-- figures: ([^>]*?) -->\n)(.*?)(<!-- /figures -->)", re.DOTALL)


def select(rows: Sequence[Row], question: str, **fields: str) -> list[Any]:
    """The rows of a question whose fields have these values, in the order in which they were measured."""
    wanted = {"question": question, **fields}.items()
    return [row for row in rows if wanted <= vars(row).items() and not isinstance(row, Provenance)]


def has_target_gain(row: Effect) -> bool:
    return abs(row.gain / TARGET_GAIN - 1) < 0.15


def table(header: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    """A Markdown table. All columns but the first are right-aligned."""
    first, *others = (f"| {' | '.join(cells)} |" for cells in (header, *body))
    return "\n".join([first, "|---" + "|---:" * (first.count("|") - 2) + "|", *others])


def grid(corner: str, cells: Mapping[tuple[str, str], str], columns: Iterable[str] = ()) -> str:
    """A table of cells by (row, column), in the order of the cells, or with these ``columns``."""
    columns = tuple(columns) or tuple(dict.fromkeys(column for _, column in cells))
    names = dict.fromkeys(name for name, _ in cells)
    return table((corner, *columns), ((name, *(cells.get((name, c), "–") for c in columns)) for name in names))


def beside_the_others(rows: Sequence[Row]) -> str:
    """The leak of each method on photographs, VE: README's table."""
    cells: dict[tuple[str, str], str] = {}
    for row in filter(has_target_gain, select(rows, "leak", model=PHOTOGRAPHS, schedule=VE)):
        mark = {OURS: "**", TRUE_REGION: "*"}.get(row.label, "")
        name = f"{mark}{row.label}{mark}"
        cells[name, MAIN_SAMPLERS[row.sampler]] = f"{mark}{row.leak:.3f}{mark}"
        cells.setdefault((name, "model calls a step"), f"{row.calls:.2f}")
    return grid("detail outside / inside", cells, (*MAIN_SAMPLERS.values(), "model calls a step"))


def leak(rows: Sequence[Row]) -> str:
    """Every model and schedule: energy with its spread over seed groups, RMS, and strength."""
    tables: list[str] = []
    for schedule, model in product((VE, FLOW), MAIN_MODELS):
        cells: dict[tuple[str, str], str] = {}
        for row in select(rows, "leak", model=model, schedule=schedule):
            spread = f" ± {row.leak_spread:.2f}" if row.leak_spread else ""
            cell = f"{row.leak:.3f}{spread} ({row.leak_rms:.2f}) at {row.strength:.2f}"
            reached = cell if has_target_gain(row) else f"not reached ({100 * row.gain:.0f} %)"
            cells[row.label, MAIN_SAMPLERS[row.sampler]] = reached
        tables.append(f"**{model.capitalize()}, {schedule}**\n\n{grid('', cells, MAIN_SAMPLERS.values())}")
    return "\n\n".join(tables)


def setup_of(row: Effect | Value) -> str:
    """Model, schedule and sampler of a row, as far as it has them."""
    sampler = MAIN_SAMPLERS.get(row.sampler, row.sampler) if isinstance(row, Effect) else ""
    return ", ".join(filter(None, (row.model, row.schedule, sampler)))


def by_setup(question: str, rows: Sequence[Row]) -> str:
    """Gain, leak and changes of mean and contrast in %, or a value: one line per setup, one column per label."""
    corner, cells = "", dict[tuple[str, str], str]()
    for row in select(rows, question):
        if isinstance(row, Value):
            cell = f"{row.value:.2f}"
        else:
            corner = "gain, leak (mean, contrast)"
            cell = f"{100 * row.gain:.0f} %, {row.leak:.3f} ({100 * row.mean:.1f}, {100 * row.contrast:+.1f})"
        cells[setup_of(row), row.label] = cell
    return grid(corner, cells)


def coverage(rows: Sequence[Row]) -> str:
    """Mean of the masks where detail belongs, and where it does not."""
    cells = {(setup_of(r), r.label): f"{r.lit_inside:.2f}, {r.lit_outside:.2f}" for r in select(rows, "coverage")}
    return grid("mask inside, outside", cells)


def kinds(rows: Sequence[Row]) -> str:
    """Kind of detail, gain, leak and mask; bold where chroma exceeds the photograph's by more than a fifth."""
    selected, body = select(rows, "kinds"), list[list[str]]()
    true_chroma = {row.model: row.chroma for row in selected if row.label == TRUE_PICTURE}
    for row in selected:
        chroma = f"**{row.chroma:.3f}**" if row.chroma > 1.2 * true_chroma[row.model] else f"{row.chroma:.3f}"
        effect = [f"{100 * row.gain:.0f} %", f"{row.leak:.3f}", f"{row.lit_inside:.2f}, {row.lit_outside:.2f}"]
        effect = effect if row.strength else ["–"] * 3  # Pictures without a method have no effect.
        body.append([f"{row.model}, {row.label}", chroma, f"{row.finest:.2f}", *effect])
    return table(["inside", "chroma / luma", "finest / next band", "gain", "leak", "mask inside, outside"], body)


def steps(rows: Sequence[Row]) -> str:
    """Gain in % and leak at each number of steps."""
    selected = select(rows, "steps")
    cells = {(f"{setup_of(r)}, {r.label}", str(r.steps)): f"{100 * r.gain:.0f} ({r.leak:.2f})" for r in selected}
    return grid("gain in % (leak)", cells, map(str, STEP_COUNTS))


def comfyui(rows: Sequence[Row]) -> str:
    """Gain and leak of each of ComfyUI's samplers at ``every`` 1, then 2; bold where they differ too much."""
    lines: dict[str, list[str]] = {}
    selected = select(rows, "comfyui")
    # Rows come in pairs: ``every`` 1, then 2.
    for one, two in zip(selected[::2], selected[1::2], strict=True):
        cell = f"{100 * one.gain:.0f}, {100 * two.gain:.0f} % ({one.leak:.2f}, {two.leak:.2f})"
        agrees = abs(two.gain / one.gain - 1) <= 0.2 and two.leak <= 1.1 * one.leak
        lines.setdefault(one.sampler, []).extend([cell if agrees else f"**{cell}**", f"{two.calls:.2f}"])
    # Samplers with equal results (GPU variants, or CFG++ without guidance) share a line.
    names = {tuple(line): [name for name in lines if lines[name] == line] for line in lines.values()}
    header = [cell for schedule in dict.fromkeys(row.schedule for row in selected) for cell in (schedule, "calls")]
    return table(["gain at every 1, 2 (leak)", *header], sorted([", ".join(names[line]), *line] for line in names))


def targets(rows: Sequence[Row]) -> str:
    """Each target, how often it was reached, and the worst case."""

    def leak_ratios(model: str) -> dict[str, float]:
        """Our leak over the published method's, by sampler."""
        effects = filter(has_target_gain, select(rows, "leak", model=model, schedule=VE))
        leaks = {(effect.label, effect.sampler): effect.leak for effect in effects}
        shared = [s for s in MAIN_SAMPLERS if {(OURS, s), (PUBLISHED, s)} <= leaks.keys()]
        return {MAIN_SAMPLERS[s]: leaks[OURS, s] / leaks[PUBLISHED, s] for s in shared}

    def values(question: str, label: str, pattern: str) -> dict[str, float]:
        """Values by setup, of the setups that match ``pattern``. Samplers of two calls are left out."""
        selected = (row for row in select(rows, question, label=label) if "sde" not in row.model)
        return {setup_of(row): row.value for row in selected if re.search(pattern, row.model)}

    gains = {(setup_of(row), row.steps): row.gain for row in select(rows, "steps", label=OURS)}
    gain_errors = {f"{at}, {n} steps": abs(gains[at, n] / gains[at, STEPS] - 1) for at, n in gains if n != STEPS}
    cfg_pp_errors = {f"{r.model}, {r.label}": abs(r.value - 1) for r in select(rows, "cfg_pp", schedule=OURS)}
    row_ratios = partial(values, "calls", f"{OURS}, rows with guidance")
    time_ratios = partial(values, "overhead", "ours / published")
    measured: list[tuple[str, float, dict[str, float]]] = [
        (f"leak over the published method's, {PHOTOGRAPHS}, VE", 0.25, leak_ratios(PHOTOGRAPHS)),
        *((f"leak over the published method's, {m}, VE", 0.2, leak_ratios(m)) for m in MAIN_MODELS[1:]),
        ("gain, how far from that at 20 steps", 0.15, gain_errors),
        ("share that is lit of what is out of focus", 0.1, values("smooth", OURS, "defocused")),
        ("Euler CFG++ beside Euler, how far from 1", 0.3, cfg_pp_errors),
        ("rows of the network with guidance, one-call samplers, Karras", 1.2, row_ratios(VE)),
        ("rows of the network with guidance, one-call samplers, normal and flow", 1.25, row_ratios("normal|flow")),
        ("time beside the network over the published pack's, pictures", 0.5, time_ratios("eps")),
        ("time beside the network over the published pack's, video", 0.33, time_ratios("flow")),
        ("own work of a due step, ms, pictures", 10, values("overhead", "a due step, ms", "eps")),
    ]
    body: list[list[str]] = []
    for name, limit, reached in measured:
        if reached:
            worst = max(reached, key=lambda setup: reached[setup])
            held = sum(value <= limit for value in reached.values())
            body.append([name, f"{limit:g}", f"{reached[worst]:.2f} ({worst})", f"{held} of {len(reached)}"])
    return table(["target, at 20 steps unless said", "at most", "worst found", "held"], body)


def provenance(rows: Sequence[Row]) -> str:
    """The commit, machine and time of each question."""
    selected = [row for row in rows if isinstance(row, Provenance)]
    body = [[f"{row.question}, {row.model}", row.commit, f"{row.seconds:.0f} s", row.device] for row in selected]
    total = sum(row.seconds for row in selected)
    return table(["question, model", "commit", "time", "machine"], [*body, ["all", "", f"{total:.0f} s", ""]])


BLOCKS: dict[str, Callable[[Sequence[Row]], str]] = {
    **{name: partial(by_setup, name) for name in QUESTIONS},
    **{block.__name__: block for block in (leak, coverage, steps, kinds, comfyui, targets, provenance)},
    "beside the others": beside_the_others,
}


def fill(text: str, rows: Sequence[Row]) -> str:
    """``text`` with new contents in every block. A block of an unknown name raises a ``KeyError``."""
    return BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]](rows)}\n{match[4]}", text)
