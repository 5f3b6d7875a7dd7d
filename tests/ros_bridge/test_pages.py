"""The commands of the pages are commands: every option exists, and nothing that is needed is left out."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from cvgl_ros.parameters import Parameters

PACKAGE = Path(__file__).resolve().parents[2] / "ros_bridge"
PAGES = [PACKAGE / "README.md", *sorted((PACKAGE / "docs").glob("*.md"))]
APPS = {
    "cvgl-prepare": "cvgl_export.prepare_cli",
    "cvgl-ros": "cvgl_ros.cli",
    "cvgl-mavlink": "cvgl.cli.mavlink",
    "cvgl-locate": "cvgl.cli.locate",
}


def commands(page: Path) -> list[list[str]]:
    """Commands of ours in blocks, and in the text where they have arguments."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(cvgl-[a-z]+ [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    words = [shlex.split(line, comments=True) for line in lines]
    return [one for one in words if one and one[0] in APPS]


FOUND = [(page.name, command) for page in PAGES for command in commands(page)]


def test_there_are_commands_on_every_page() -> None:
    assert {name for name, _ in FOUND} == {page.name for page in PAGES}
    assert {command[0] for _, command in FOUND} == set(APPS)


@pytest.mark.parametrize(("page", "words"), FOUND, ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_command_can_be_given_as_it_is_written(page: str, words: list[str]) -> None:
    module = APPS[words[0]]
    if module.startswith("cvgl_export"):
        pytest.importorskip(module)
    command = typer.main.get_command(importlib.import_module(module).app)
    context = command.make_context(words[0], [], resilient_parsing=True)
    options, _, _ = command.make_parser(context).parse_args(list(words[1:]))
    if "--write-params" in words:
        return  # it ends at once
    for parameter in command.params:
        assert not parameter.required or options.get(parameter.name) is not None, f"{page}: {parameter.name}"
    settings = dict(value.split("=", 1) for value in options.get("set_") or [])
    Parameters.from_dict({name: yaml.safe_load(value) for name, value in settings.items()})
