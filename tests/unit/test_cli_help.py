"""Help and completion: complete, quick, and every example right as it stands."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from polyglot_persistence.cli.app import SECTIONS, app
from polyglot_persistence.cli.command import EXIT_CODES, Command, Commands

HEAVY = {
    *("asyncpg", "elasticsearch", "hiredis", "httpx2", "msgspec", "pamqp", "pyarrow"),
    *("rich", "starlette", "tantivy", "uvicorn", "polyglot_persistence.bootstrap"),
}
PRINTS_NO_DATA = {"api", "completion", "demo", "up", "worker"}
"""What runs until it is stopped, or prints a script."""

_ASSIGNMENT = re.compile(r"[A-Z_]+=.*")


def _tree(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if path:
        yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from _tree(below, *path, name)


COMMANDS = dict(_tree(app))
EACH = pytest.mark.parametrize("path", COMMANDS, ids=" ".join)


def test_help_imports_nothing_heavy() -> None:
    """No help, and no completion, pays for a store, a server or a data set at a key press."""
    asked = [[*path, "--help"] for path in ((), *COMMANDS)]
    code = (
        "import sys\n"
        "from polyglot_persistence.cli.app import app\n"
        f"for arguments in {asked!r}:\n"
        "    app(arguments, standalone_mode=False)\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert ran.stdout.count("Usage: ") == len(asked)
    assert set() == HEAVY & set(ran.stderr.split())


def test_every_command_stands_in_one_section() -> None:
    """The first page of help is complete."""
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(app.commands)
    shown = CliRunner().invoke(app, ["--help"]).stdout
    for heading, names in SECTIONS.items():
        assert f"\n{heading}:\n" in shown
        for name in names:
            assert re.search(rf"^  {name} +[A-Z].*\.$", shown, re.MULTILINE), name


def test_exit_codes_are_told() -> None:
    """Scripts need them."""
    shown = CliRunner().invoke(app, ["--help"]).stdout
    for code, meaning in EXIT_CODES:
        assert re.search(rf"^  {code} +{re.escape(meaning)}$", shown, re.MULTILINE)


@EACH
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    """With what it does, its options, and examples that are not wrapped."""
    command = COMMANDS[path]
    assert isinstance(command, Command | Commands)
    assert command.short_help or "." in (command.help or "")
    result = CliRunner().invoke(app, [*path, "-h"], prog_name="polyglot")
    assert result.exit_code == 0
    assert f"Usage: polyglot {' '.join(path)} " in result.stdout
    assert command.examples
    for example in command.examples:
        assert f"polyglot {' '.join(path)}" in example.replace("--stores-of .data ", "")
        assert f"\n  {example}\n" in result.stdout


@pytest.mark.parametrize(
    "example", [line for command in COMMANDS.values() for line in getattr(command, "examples", ())]
)
def test_every_example_is_right(example: str) -> None:
    """Each names a command that there is, and options and values that it takes."""
    quoted = re.search(r"\$\((.*?)\)", example)
    words = shlex.split(re.split(r" [|>] ", quoted[1] if quoted else example)[0])
    while _ASSIGNMENT.fullmatch(words[0]):
        words.pop(0)
    assert words.pop(0) == "polyglot"
    if words[0] == "--stores-of":
        words = words[2:]
    command: click.Command = app
    context = click.Context(app, info_name="polyglot", **app.context_settings)
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        if isinstance(found, click.Group) and not words:
            return
        command = found
        if not isinstance(command, click.Group):
            command.make_context(name, words, parent=context)


@EACH
def test_what_prints_data_prints_json(path: tuple[str, ...]) -> None:
    """Programs need no table."""
    command = COMMANDS[path]
    if isinstance(command, click.Group) or path[0] in PRINTS_NO_DATA:
        return
    assert "as_json" in {parameter.name for parameter in command.params}


def test_bold_is_for_terminals_that_want_it() -> None:
    """Headings are bold on a terminal, plain in a pipe and with NO_COLOR."""
    bold = "\x1b[1mExamples\x1b[0m:"
    assert bold in CliRunner().invoke(app, ["config", "-h"], color=True).stdout
    assert "\x1b" not in CliRunner().invoke(app, ["config", "-h"]).stdout
    plain = CliRunner().invoke(app, ["config", "-h"], color=True, env={"NO_COLOR": "1"})
    assert "\x1b" not in plain.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_that_shell(shell: str) -> None:
    """The shell itself, where it is installed, takes the script."""
    result = CliRunner().invoke(app, ["completion", shell])
    assert result.exit_code == 0, result.output
    assert f"_POLYGLOT_COMPLETE={shell}_complete" in result.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=result.stdout, text=True, check=True)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("polyglot dead", {"dead-letters"}),
        ("polyglot dead-letters re", {"replay"}),
        ("polyglot completion ", {"bash", "fish", "zsh"}),
        ("polyglot load ", {"completejourney"}),
    ],
)
def test_completion_completes(line: str, expected: set[str]) -> None:
    """Commands, their commands, and the values that they take."""
    words = line.split(" ")
    ran = subprocess.run(
        [sys.executable, "-m", "polyglot_persistence"],
        env=os.environ
        | {
            "_POLYGLOT_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert {each.partition(",")[2] for each in ran.stdout.split()} == expected
