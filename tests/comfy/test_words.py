"""Descriptions and tooltips of the nodes in the code and in four languages, and their help."""

from __future__ import annotations

import asyncio
import json
import os
import re
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
from comfy_api.latest import io
from server_process import REPOSITORY

from selective_sigma.comfy.nodes import nodes, words
from selective_sigma.report import Reason
from selective_sigma.settings import CHOICES, RANGES, SETTING_NAMES, Settings

if TYPE_CHECKING:
    from pathlib import Path

LOCALES, HELP = REPOSITORY / "locales", REPOSITORY / "web/docs"
CLASSES = asyncio.run(nodes.SelectiveSigmaExtension().get_node_list())
SCHEMAS = {kind.__name__: kind.GET_SCHEMA() for kind in CLASSES}
DEBUG = SCHEMAS["SelectiveSigmaDetailerDebugNode"]


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_node_says_what_it_is(kind: str):
    schema = SCHEMAS[kind]
    assert schema.node_id == kind
    assert schema.description
    assert all(socket.tooltip for socket in [*schema.inputs, *schema.outputs])
    assert (REPOSITORY / f"web/docs/{kind}.md").read_text().startswith(f"# {schema.display_name}\n")


def test_the_debug_node_is_the_settings():
    inputs = {one.id: one for one in DEBUG.inputs if one.id in SETTING_NAMES}
    assert list(inputs) == list(SETTING_NAMES)
    for name, one in inputs.items():
        assert one.default == getattr(Settings(), name)
        assert one.tooltip == words.SETTINGS[name]
        if name in CHOICES:
            assert tuple(one.options) == CHOICES[name]
        else:
            assert isinstance(one, io.Int.Input if name == "every" else io.Float.Input)
            assert (one.min, one.max) == RANGES[name]
    assert set(words.SETTINGS) == set(SETTING_NAMES)
    pages = [REPOSITORY / f"web/docs/{DEBUG.node_id}.md", *(REPOSITORY / f"web/docs/{DEBUG.node_id}").glob("*.md")]
    assert len(pages) == 4
    for page in pages:
        for name in SETTING_NAMES:
            # In the table or below it, where the longest name is: it would make the table too wide.
            assert re.search(rf"`{name}`( \|)? \*{getattr(Settings(), name)}\*", page.read_text()), page


def words_of(schema: Any) -> dict[str, Any]:
    """A node's entry in a locale file."""
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {one.id: {"name": one.id, "tooltip": one.tooltip} for one in schema.inputs},
        "outputs": {str(i): {"name": one.display_name, "tooltip": one.tooltip} for i, one in enumerate(schema.outputs)},
    }


def test_the_english_words_are_the_nodes_own():
    english = {kind: words_of(schema) for kind, schema in SCHEMAS.items()}
    path = LOCALES / "en/nodeDefs.json"
    if os.environ.get("UPDATE_LOCALE"):
        path.write_text(json.dumps(english, indent=2, ensure_ascii=False) + "\n")
    assert json.loads(path.read_text()) == english, "run again with UPDATE_LOCALE=1"


def test_four_languages():
    """Those of ComfyUI's languages that could be checked. ComfyUI does not offer German."""
    assert {path.parent.name for path in LOCALES.glob("*/nodeDefs.json")} == {"en", "ja", "zh", "ko"}


@pytest.mark.parametrize("path", sorted(LOCALES.glob("*/nodeDefs.json")), ids=lambda path: path.parent.name)
def test_a_translation_has_every_word(path: Path):
    def shape(part: Any) -> Any:
        return {key: shape(value) for key, value in part.items()} if isinstance(part, dict) else bool(part)

    english = json.loads((LOCALES / "en/nodeDefs.json").read_text())
    assert shape(json.loads(path.read_text())) == shape(english)


def numbers(text: str) -> set[str]:
    """The numbers in a text, with decimal points for decimal commas."""
    return {number.replace(",", ".") for number in re.findall(r"\d+(?:[.,]\d+)?", text)}


@pytest.mark.parametrize("language", ["ja", "zh", "ko"])
def test_a_translation_gives_the_same_numbers(language: str):
    """Ranges, defaults and usual values, in tooltips and in help."""
    english, other = (json.loads((LOCALES / one / "nodeDefs.json").read_text()) for one in ("en", language))
    for kind, node in english.items():
        for part in ("inputs", "outputs"):
            for name, one in node[part].items():
                assert numbers(one["tooltip"]) <= numbers(other[kind][part][name]["tooltip"]), f"{kind} {name}"
        assert numbers((HELP / f"{kind}.md").read_text()) <= numbers((HELP / kind / f"{language}.md").read_text()), kind


def test_advice_on_strength_is_one():
    """The same in tooltip, help and README."""
    advice = "0.1 to begin with, 0.05 is subtle, 0.15 a lot"
    assert advice in words.STRENGTH
    for kind in ("SelectiveSigmaDetailerNode", "SelectiveSigmaDetailerModelNode"):
        assert advice in (HELP / f"{kind}.md").read_text()
    assert "strength 0.1 and coverage 0.5" in " ".join((REPOSITORY / "README.md").read_text().split())


@pytest.mark.parametrize("page", sorted(HELP.rglob("*.md")), ids=lambda page: str(page.relative_to(HELP)))
def test_emphasis_is_shown_as_such(page: Path):
    """Markdown does not end emphasis between a bracket and a letter, as in Chinese headings."""

    def sign(letter: str) -> bool:
        return unicodedata.category(letter)[0] in "PS"

    for line in page.read_text().splitlines():
        for match in re.finditer(r"(\*{1,2})(.+?)\1", line):
            before, after = line[: match.start()][-1:] or " ", line[match.end() :][:1] or " "
            assert not sign(match[2][-1]) or after.isspace() or sign(after), match[0]
            assert not sign(match[2][0]) or before.isspace() or sign(before), match[0]


def test_every_reason_has_words_of_its_own():
    assert len({reason.text for reason in Reason}) == len(Reason)
    assert all(reason.text and reason.value in reason.name.lower() for reason in Reason)
