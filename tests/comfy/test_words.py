"""What the nodes say, in the code, in four languages and in their help."""

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
    assert all(given.tooltip for given in [*schema.inputs, *schema.outputs])
    assert (REPOSITORY / f"web/docs/{kind}.md").read_text().startswith(f"# {schema.display_name}\n")


def test_the_debug_node_is_the_settings():
    given = {one.id: one for one in DEBUG.inputs if one.id in SETTING_NAMES}
    assert list(given) == list(SETTING_NAMES)
    for name, one in given.items():
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
            # In the table, or below it: the longest name would take the table's width.
            assert re.search(rf"`{name}`( \|)? \*{getattr(Settings(), name)}\*", page.read_text()), page


def words_of(schema: Any) -> dict[str, Any]:
    """What a locale file holds of a node; widgets have a label, and so do sockets."""
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {one.id: {"name": one.id, "tooltip": one.tooltip} for one in schema.inputs},
        "outputs": {str(i): {"name": one.display_name, "tooltip": one.tooltip} for i, one in enumerate(schema.outputs)},
    }


def test_the_english_words_are_the_nodes_own():
    said = {kind: words_of(schema) for kind, schema in SCHEMAS.items()}
    path = LOCALES / "en/nodeDefs.json"
    if os.environ.get("UPDATE_LOCALE"):
        path.write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n")
    assert json.loads(path.read_text()) == said, "run again with UPDATE_LOCALE=1"


def test_four_languages():
    """Those of ComfyUI's own languages that somebody here reads; it offers no German."""
    assert {path.parent.name for path in LOCALES.glob("*/nodeDefs.json")} == {"en", "ja", "zh", "ko"}


@pytest.mark.parametrize("path", sorted(LOCALES.glob("*/nodeDefs.json")), ids=lambda path: path.parent.name)
def test_a_translation_has_every_word(path: Path):
    def shape(given: Any) -> Any:
        return {key: shape(value) for key, value in given.items()} if isinstance(given, dict) else bool(given)

    english = json.loads((LOCALES / "en/nodeDefs.json").read_text())
    assert shape(json.loads(path.read_text())) == shape(english)


def numbers(text: str) -> set[str]:
    """As a person reads them: 0,05 is 0.05."""
    return {number.replace(",", ".") for number in re.findall(r"\d+(?:[.,]\d+)?", text)}


@pytest.mark.parametrize("language", ["ja", "zh", "ko"])
def test_a_translation_gives_the_same_numbers(language: str):
    """Ranges, defaults and usual values, in tooltips and in help."""
    english, other = (json.loads((LOCALES / one / "nodeDefs.json").read_text()) for one in ("en", language))
    for kind, said in english.items():
        for part in ("inputs", "outputs"):
            for name, one in said[part].items():
                assert numbers(one["tooltip"]) <= numbers(other[kind][part][name]["tooltip"]), f"{kind} {name}"
        assert numbers((HELP / f"{kind}.md").read_text()) <= numbers((HELP / kind / f"{language}.md").read_text()), kind


def test_advice_on_strength_is_one():
    """In tooltip, help and README: where to begin, what is subtle and what is a lot."""
    advice = "0.1 to begin with, 0.05 is subtle, 0.15 a lot"
    assert advice in words.STRENGTH
    for kind in ("SelectiveSigmaDetailerNode", "SelectiveSigmaDetailerModelNode"):
        assert advice in (HELP / f"{kind}.md").read_text()
    assert "strength 0.1 and coverage 0.5" in " ".join((REPOSITORY / "README.md").read_text().split())


@pytest.mark.parametrize("page", sorted(HELP.rglob("*.md")), ids=lambda page: str(page.relative_to(HELP)))
def test_emphasis_is_shown_as_such(page: Path):
    """Markdown lets a mark after a bracket stand as it is where a letter follows, as in Chinese headings."""

    def sign(letter: str) -> bool:
        return unicodedata.category(letter)[0] in "PS"

    for line in page.read_text().splitlines():
        for found in re.finditer(r"(\*{1,2})(.+?)\1", line):
            before, after = line[: found.start()][-1:] or " ", line[found.end() :][:1] or " "
            assert not sign(found[2][-1]) or after.isspace() or sign(after), found[0]
            assert not sign(found[2][0]) or before.isspace() or sign(before), found[0]


def test_every_reason_has_words_of_its_own():
    assert len({reason.text for reason in Reason}) == len(Reason)
    assert all(reason.text and reason.value in reason.name.lower() for reason in Reason)
