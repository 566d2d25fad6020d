"""The command line: every command is there, errors are one red line, flags stay what they are."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from authface import __version__
from authface.cli import app
from authface.store.photoset import PhotoSet
from tests.conftest import authface as authface_here

COMMANDS = """
    demo app serve doctor status why restore
    curate fetch|curate filter|curate align|curate review|curate split|curate report|curate credits|curate forget
    curate balance|curate learn
    annotate tags|annotate import|annotate compare|annotate export|annotate push|annotate rebuild
    train autoencoder|train cleaner|train prior|train controlnet|train configs
    estimate train prior|estimate train controlnet
    evaluate synth|evaluate restoration|evaluate prior|evaluate runtime|evaluate table|evaluate ab|evaluate challenge
    models list|models pull|models verify|models pack|models export|models push
"""
COMMON_FLAGS = {
    "--recipe", "-O", "--device", "--workers", "--engine", "--seed", "--limit", "--dry-run", "--json", "--debug",
}  # fmt: skip
RUN_COMMANDS = {
    "demo", "restore", "app", "serve", "curate fetch", "curate filter", "curate align", "curate learn", "curate review",
    "annotate tags", "annotate import", "annotate compare", "annotate push", "annotate rebuild",
    "annotate export", "train autoencoder", "train cleaner", "train prior", "train controlnet",
    "status", "why", "curate report", "curate credits", "curate forget", "curate balance", "curate split",
    "estimate train prior", "estimate train controlnet", "evaluate synth", "evaluate restoration",
    "evaluate prior", "evaluate challenge",
    "models list", "models pack", "models export", "models pull", "models verify", "models push", "doctor",
}  # fmt: skip


def commands() -> dict[str, Any]:
    """Every leaf command by its full name."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        for word, child in getattr(command, "commands", {}).items():
            yield from walk(child, f"{name} {word}".strip())
        if not hasattr(command, "commands"):
            yield name, command

    return dict(walk(typer.main.get_command(app), ""))


def expected() -> set[str]:
    first, *groups = COMMANDS.strip().splitlines()
    return {*first.split(), *(name.strip() for line in groups for name in line.split("|"))}


def authface(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from authface.cli import main; main()"
    variables = os.environ | {"COLUMNS": "200"} | environment
    command = [sys.executable, "-c", f"import sys; sys.argv[0] = 'authface'; {code}", *words]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=120)


def test_every_command_of_the_design_is_mounted() -> None:
    assert set(commands()) == expected()


def test_every_command_says_what_it_does() -> None:
    for name, command in commands().items():
        assert command.help and command.help.strip(), name


def test_common_flags_are_frozen() -> None:
    for name, command in commands().items():
        flags = {flag for parameter in command.params for flag in parameter.opts + parameter.secondary_opts}
        if name in RUN_COMMANDS:
            assert flags >= COMMON_FLAGS, name
        else:
            assert not flags & (COMMON_FLAGS - {"--debug"}) or flags >= COMMON_FLAGS, f"{name}: all of them or none"


def test_an_error_is_one_line(tmp_path: Path) -> None:
    done = authface("curate", "filter", "--recipe", "nothing\nhere", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("authface: no recipe nothing\\nhere")
    assert "default" in done.stderr, "the next step"


def test_a_wrong_override_is_one_line_with_a_suggestion(tmp_path: Path) -> None:
    done = authface("curate", "filter", "-O", "curate.filtr.x=1", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "did you mean curate.filter?" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "restore s3://bucket/a.jpg",
        "restore a.jpg -o s3://bucket/out/",
        "evaluate restoration --outputs ours=s3://bucket/out",
        "train prior -O train.prior.out=s3://bucket/out",
        "demo s3://bucket/demo",
    ],
)
def test_an_address_is_no_path_of_this_machine(words: str, tmp_path: Path) -> None:
    done = authface(*words.split(), cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
    assert "s3://bucket/" in done.stderr and "only photo sets lie in object stores" in done.stderr


@pytest.mark.parametrize(
    "words",
    [["restore", ""], ["restore", "a.jpg", "-o", ""], ["curate", "report", ""], ["status", ""], ["demo", ""]],
)
def test_an_empty_path_is_not_the_folder_one_stands_in(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    done = authface(*words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n"), [path.name for path in tmp_path.iterdir()]) == (2, 1, ["a.jpg"])
    assert "an empty path" in done.stderr


def test_an_unknown_engine_is_one_line(tmp_path: Path) -> None:
    done = authface("curate", "filter", "--engine", "spark", cwd=tmp_path)
    assert done.returncode == 2 and "there are local and ray" in done.stderr


def test_debug_shows_the_trace(tmp_path: Path) -> None:
    done = authface("curate", "filter", "--recipe", "nothing", "--debug", cwd=tmp_path)
    assert done.returncode != 0 and "Traceback" in done.stderr and "UsageError" in done.stderr


def test_a_bug_is_one_line_too(tmp_path: Path) -> None:
    code = (
        "import sys, authface.cli as c\n"
        "@c.app.command()\n"
        "def bug() -> None:\n    raise RuntimeError('first\\nsecond')\n"
        "sys.argv = ['authface', 'bug']\nc.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "authface: unexpected RuntimeError: first\\nsecond; run again with --debug for the trace\n"


def test_a_stopped_command_says_how_to_go_on(tmp_path: Path) -> None:
    code = (
        "import sys, authface.cli as c\n"
        "@c.app.command()\n"
        "def stopped() -> None:\n    raise KeyboardInterrupt\n"
        "sys.argv = ['authface', 'stopped']\nc.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.count("\n") == 1 and "run the same command again" in done.stderr


def test_errors_are_red_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "authface.cli", "models", "pull", "tiny"]
    variables = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}} | {"TERM": "xterm"}
    assert subprocess.run(command, cwd=tmp_path, env=variables, stderr=theirs).returncode == 2
    os.close(theirs)
    written = os.read(ours, 10_000).decode()
    os.close(ours)
    assert written.startswith("\x1b[31mauthface: ") and written.rstrip().endswith("\x1b[0m")


def test_usage_errors_and_help_have_their_exit_codes(tmp_path: Path) -> None:
    assert authface("--help", cwd=tmp_path).returncode == 0
    assert authface("--version", cwd=tmp_path).stdout == f"authface {__version__}\n"
    unknown = authface("curat", cwd=tmp_path)
    assert unknown.returncode == 2 and "curat" in unknown.stderr
    assert authface("curate", "filter", "--nothing", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_its_script_and_completes(shell: str, tmp_path: Path) -> None:
    done = authface(cwd=tmp_path, _AUTHFACE_COMPLETE=f"source_{shell}")
    assert done.returncode == 0 and "_AUTHFACE_COMPLETE" in done.stdout


def test_completion_knows_the_commands(tmp_path: Path) -> None:
    words = {"_AUTHFACE_COMPLETE": "complete_bash", "COMP_WORDS": "authface curate f", "COMP_CWORD": "2"}
    done = authface(cwd=tmp_path, **words)
    assert {"fetch", "filter", "forget"} <= set(done.stdout.split())


def test_json_is_one_object_on_standard_output(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    done = authface("curate", "fetch", "--from", "folder", "photos", "--json", cwd=tmp_path)
    assert done.returncode in {0, 1}
    assert done.stdout == "" or isinstance(json.loads(done.stdout), dict)


@pytest.mark.parametrize("words", ["demo SET/demo", "curate report SET", "curate credits SET"])
def test_a_dry_run_writes_nothing(words: str, furnished: Callable[[Path], PhotoSet], tmp_path: Path) -> None:
    root = furnished(tmp_path / "set").root
    before = sorted(root.rglob("*"))
    done = authface_here(*words.replace("SET", str(root)).split(), "--dry-run")
    assert done.returncode == 0 and ".html" in done.stdout, done.stderr
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("curate fetch SET --from nobody", "no source nobody"),
        ("curate filter SET -O curate.filter.detector=nobody", "no detector nobody"),
        ("curate balance SET --target nobody=uniform", "no margin nobody"),
        ("annotate tags SET --with ../../x", "no captioner ../../x"),
        ("annotate tags SET --with openai -O annotate.tags.prompt=nobody", "no prompt nobody"),
        ("annotate export SET -O annotate.export.annotators=['nobody']", "--with nobody"),
        ("train prior -O train.prior.model=nobody", "no model 'nobody'"),
        ("train controlnet -O train.controlnet.begin_from=nobody", "no model 'nobody'"),
        ("restore SET/photos -o SET/../out --model nobody", "one of tiny, sdxl, authface, identity"),
        ("app --model nobody", "one of tiny, sdxl, authface, identity"),
        ("evaluate prior --model nobody", "no model 'nobody'"),
        ("evaluate runtime --model nobody", "one of tiny, sdxl, authface, identity"),
        ("evaluate runtime --preset nobody", "restore.preset"),
    ],
)
def test_a_dry_run_refuses_the_names_that_the_run_would(
    words: str, said: str, furnished: Callable[[Path], PhotoSet], tmp_path: Path
) -> None:
    root = furnished(tmp_path / "set").root
    done = authface_here(*words.replace("SET", str(root)).split(), "--dry-run")
    assert done.returncode == 2 and done.stdout == "" and said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
