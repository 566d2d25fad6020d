"""The paper's ablations as a grid of this toolkit's own commands: trainings, restorations and measurements.

Each step is a command that anyone could type, run as a process of its own. One that is finished is left out the next
time, until its words, or those of a step it builds on, are others.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from authface.console import Console
from authface.errors import AuthfaceError, UsageError, one_line
from authface.evaluate.paper.paper import OurReport
from authface.files import write_errors, write_file
from authface.store.lock import write_lock

SOME_FAILED = 3
"""Exit code of a command that was done but for some inputs."""


@dataclass(frozen=True)
class AblationCell:
    """One row of an ablation: how stage II is trained, and on which prior."""

    label: str
    """The row's in the paper's table."""
    name: str
    """Its folder; cells of one name in two tables are the same training."""
    face_prior: bool
    facial: Mapping[str, str]
    """Settings below ``train.controlnet.facial``."""


def _weighted(m: str, s: str) -> AblationCell:
    name = "time" if (m, s) == ("-0.5", "1.0") else f"time_m{m}_s{s}"
    label = f"m = {m.removesuffix('.0')}, s = {s.removesuffix('.0')}"
    return AblationCell(label, name, True, {"weight": "time", "m": m, "s": s})


CELLS: dict[int, tuple[AblationCell, ...]] = {
    2: (
        AblationCell("SDXL prior", "base", False, {"weight": "off"}),
        AblationCell("face prior", "prior_only", True, {"weight": "off"}),
        AblationCell("face prior, constant facial loss", "constant", True, {"weight": "constant"}),
        AblationCell("face prior, time-aware facial loss", "time", True, {"weight": "time", "m": "-0.5", "s": "1.0"}),
    ),
    4: (_weighted("-0.5", "1.0"), _weighted("0.0", "1.0"), _weighted("0.5", "1.0"), _weighted("-0.5", "0.5")),
}
"""By table. Appendix B: m in -0.5, 0, 0.5 with s = 1, and m = -0.5 with s = 0.5."""


@dataclass(frozen=True)
class PriorAblationCell:
    """One row of table 3: what stage I is trained on, and asked for."""

    label: str
    name: str
    """Its folder."""
    prompts: str
    """`semantic` or `all`; empty: the family as it is, asked for all."""


PRIORS = (
    PriorAblationCell("SDXL", "base", ""),
    PriorAblationCell("semantic tags", "prior_semantic", "semantic"),
    PriorAblationCell("semantic and photographic tags", "prior", "all"),
)
"""Table 3."""


@dataclass(frozen=True)
class GridSetup:
    """What all cells share."""

    folder: Path
    dataset: Path
    """Captioned faces to train on."""
    test: Path | None
    """A folder of `authface evaluate synth`; None makes one of the dataset."""
    base: str
    """The family that stage I begins with, and that the cell without a face prior keeps."""
    common: tuple[str, ...]
    """Words of every command: recipe, device, seed."""
    overrides: tuple[str, ...] = ()
    """Settings ``path=value``: each is said to the commands that read it, so that another way of restoring trains
    nothing anew."""

    def words(self, section: str, command: Sequence[str], *own: str) -> tuple[str, ...]:
        """A command that reads the recipe's table `section`; its `own` settings come last, and win."""
        return words_of(section, command, self.common, self.overrides, own)

    def training(self, stage: str, *own: str) -> tuple[str, ...]:
        """A training; latents and prompts are encoded once for all of them, unless the settings have a cache."""
        section = f"train.{stage}"
        cache = f"{section}.cache={self.folder / 'cache'}"
        return self.words(section, ("train", stage, str(self.dataset), "-O", cache), *own)


def words_of(
    section: str, command: Sequence[str], common: Sequence[str], overrides: Sequence[str], own: Sequence[str]
) -> tuple[str, ...]:
    """A command with the words of all commands, and those of the overrides that its table `section` reads."""
    read = [given for given in overrides if _reads(section, given.partition("=")[0].strip())]
    return (*command, *common, *(word for value in (*read, *own) for word in ("-O", value)))


def _reads(section: str, path: str) -> bool:
    """Whether a setting lies in the table `section`, or is a table that holds it."""
    return f"{path}.".startswith(f"{section}.") or f"{section}.".startswith(f"{path}.")


@dataclass(frozen=True)
class GridStep:
    """One command; `needs` are names of earlier ones."""

    name: str
    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    reads: str = ""
    """A digest of the files it reads beside those of `needs`, where they may change."""

    @property
    def command(self) -> str:
        """As it is typed."""
        return shlex.join(["authface", *self.words])


def check(number: int) -> None:
    """Raises UsageError for a table that is no grid."""
    if number not in {*CELLS, 3}:
        raise UsageError(f"table {number} is no grid of trainings: --grid is for 2, 3 and 4")


def plan(number: int, ground: GridSetup) -> list[GridStep]:
    """Every command of a table, in an order in which each finds what it needs. Raises UsageError as `check`."""
    check(number)
    if number == 3:
        return [step for cell in PRIORS for step in _prior_steps(cell, ground)]
    test = ground.test or ground.folder / "test"
    steps = []
    if ground.test is None:
        steps.append(
            GridStep(
                "test", ground.words("evaluate.synth", ("evaluate", "synth", str(ground.dataset), "-o", str(test)))
            )
        )
    prior = ground.folder / "prior"
    steps.append(_prior_step("prior", ground))
    for cell in CELLS[number]:
        steps += _cell_steps(cell, ground, test, str(prior) if cell.face_prior else ground.base)
    measured = tuple(f"{cell.name} measure" for cell in CELLS[number])
    return [
        *steps,
        GridStep(f"compare {number}", _measure(CELLS[number], ground, test, compared(number, ground.folder)), measured),
    ]


def _prior_step(name: str, ground: GridSetup, *own: str) -> GridStep:
    model = (f"train.prior.model={ground.base}", f"train.prior.out={ground.folder / name}")
    return GridStep(name, ground.training("prior", *model, *own))


def _prior_steps(cell: PriorAblationCell, ground: GridSetup) -> list[GridStep]:
    model = str(ground.folder / cell.name) if cell.prompts else ground.base
    words = ("evaluate", "prior", "--model", model, "--dataset", str(ground.dataset))
    asked = ("--prompts", cell.prompts or "all", "-o", str(_prior_report(cell, ground.folder)))
    judge = ground.words("evaluate.prior", (*words, *asked))
    if not cell.prompts:
        return [GridStep(f"{cell.name} judge", judge)]
    own = () if cell.name == "prior" else (f"train.prior.prompts={cell.prompts}",)  # one training for tables 2, 3, 4
    return [_prior_step(cell.name, ground, *own), GridStep(f"{cell.name} judge", judge, (cell.name,))]


def _prior_report(cell: PriorAblationCell, folder: Path) -> Path:
    return folder / f"{cell.name}_drawn"


def _cell_steps(cell: AblationCell, ground: GridSetup, test: Path, prior: str) -> list[GridStep]:
    home = ground.folder / cell.name
    model, outputs = home / "model", home / "outputs"
    own = [f"train.controlnet.model={prior}", f"train.controlnet.out={model}"]
    own += [f"train.controlnet.facial.{name}={value}" for name, value in cell.facial.items()]
    train = ground.training("controlnet", *own)
    restore = ("restore", str(test / "degraded"), "--aligned", "--model", str(model), "-o", str(outputs))
    trained, restored = f"{cell.name} train", f"{cell.name} restore"
    made = () if ground.test is not None else ("test",)
    return [
        GridStep(trained, train, ("prior",) if cell.face_prior else ()),
        GridStep(restored, ground.words("restore", restore, "restore.report=false"), (trained, *made)),
        GridStep(f"{cell.name} measure", _measure([cell], ground, test, home / "report"), (restored, *made)),
    ]


def _measure(cells: Sequence[AblationCell], ground: GridSetup, test: Path, report: Path) -> tuple[str, ...]:
    """The cells' outputs in one report; what one report measured another reads."""
    words = ["evaluate", "restoration", "--truth", str(test / "clean"), "--inputs", str(test / "degraded")]
    words += [word for cell in cells for word in ("--outputs", f"{cell.name}={ground.folder / cell.name / 'outputs'}")]
    cache = f"evaluate.restoration.cache={ground.folder / 'values'}"
    return ground.words("evaluate.restoration", [*words, "-o", str(report)], cache)


def compared(number: int, folder: Path) -> Path:
    """The folder of the report on all cells of a table, with their differences face by face."""
    return folder / f"compare{number}"


def fingerprints(steps: Sequence[GridStep]) -> dict[str, str]:
    """sha256 of each step's words, of what it reads and of those it builds on, by name."""
    found: dict[str, str] = {}
    for step in steps:
        held = json.dumps([step.words, [found[name] for name in step.needs], *([step.reads] if step.reads else [])])
        found[step.name] = hashlib.sha256(held.encode("utf-8", "surrogateescape")).hexdigest()
    return found


def finished(steps: Sequence[GridStep], folder: Path) -> set[str]:
    """Names of the steps that were done with these words."""
    wanted = fingerprints(steps)
    return {name for name, digest in wanted.items() if _held(_mark(folder, name, "done")) == digest}


def _held(mark: Path) -> str:
    return mark.read_text("ascii", "replace").strip() if mark.is_file() else ""


def _mark(folder: Path, name: str, ending: str) -> Path:
    return folder / "steps" / f"{name.replace(' ', '_')}.{ending}"


@dataclass(frozen=True)
class GridRun:
    """How many steps ran, and the names of those that failed or build on one that did."""

    ran: int
    lost: frozenset[str] = frozenset()


def run(steps: Sequence[GridStep], folder: Path, console: Console, *, patient: bool = False) -> GridRun:
    """Run what is not finished, one after the other.

    Raises AuthfaceError for a command that failed, with what it said (`patient` logs it and goes on with what does not
    build on it), and where another run holds the folder; what was finished is kept.
    """
    digests, ran, lost = fingerprints(steps), 0, set[str]()
    with write_lock(folder), console.progress("grid", len(steps), "steps") as tick:
        done = finished(steps, folder)
        for step in steps:
            if lost & set(step.needs):
                lost.add(step.name)
            elif step.name not in done:
                try:
                    _run_one(step, folder)
                    write_file(_mark(folder, step.name, "done"), (digests[step.name] + "\n").encode())
                    ran += 1
                except AuthfaceError as error:
                    if not patient:
                        raise
                    console.log(str(error))
                    lost.add(step.name)
            tick(note=step.name)
    return GridRun(ran, frozenset(lost))


def _run_one(step: GridStep, folder: Path) -> None:
    log = _mark(folder, step.name, "log")
    with write_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            file.write(f"{step.command}\n".encode("utf-8", "surrogateescape"))
            file.flush()
            code = _ended(step.words, file)
    if code not in {0, SOME_FAILED}:
        said = log.read_text("utf-8", "replace").strip().splitlines()[-1]
        raise AuthfaceError(
            f"grid: {step.name} ended with {code}: {one_line(said, 400)}; see {one_line(log)}, and run the same "
            "command again to go on"
        )


def _ended(words: Sequence[str], log: IO[bytes]) -> int:
    """Exit code of a command of this toolkit, in a process of its own."""
    command = [sys.executable, "-m", "authface.cli", *words]
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode


def reports(number: int, folder: Path) -> list[OurReport]:
    """The cells of a table that were measured in this folder, under the names of the paper's rows."""
    homes = [(cell.label, folder / cell.name / "report", "restoration.json") for cell in CELLS.get(number, ())]
    if number == 3:
        homes = [(cell.label, _prior_report(cell, folder), "prior.json") for cell in PRIORS]
    return [OurReport(label, "", report) for label, report, file in homes if (report / file).is_file()]


def to_text(steps: Sequence[GridStep], folder: Path) -> str:
    """The commands, those that are finished marked."""
    done = finished(steps, folder)
    return "\n".join(f"# {step.name}{': done' if step.name in done else ''}\n{step.command}" for step in steps)
