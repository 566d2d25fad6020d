"""`authface models`: list, pull, verify, pack, export, push."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from authface.errors import AuthfaceError, UsageError, one_line, shell_word
from authface.extras import need
from authface.options import Run, command_with_run

if TYPE_CHECKING:
    from authface.models.families import ModelSource
    from authface.models.networks import Network

app = typer.Typer(help="Models: what there is, fetch it, check it, make one ready to ship.", no_args_is_help=True)


class Precision(StrEnum):
    """What `--dtype` takes."""

    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"


@app.command("pack")
@command_with_run
def pack(
    run: Run,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A trained family, such as models/authface.")],
    out: Annotated[Path, typer.Option("-o", metavar="OUT", help="The folder it is written to.")],
    dtype: Annotated[Precision, typer.Option(help="Precision of its weights.")] = Precision.float16,
) -> None:
    """Copy a family for shipping: one precision, no checkpoints, the sha256 of every file in weights.json.

    The same family always gives the same bytes. An earlier pack in OUT is replaced; anything else there is refused.
    """
    from authface.models import publish as packing
    from authface.models.layout import MANIFEST, onnx_files

    folder, out = folder.expanduser(), out.expanduser()
    files = packing.family_files(folder)
    names = [path.relative_to(folder).as_posix() for path in files]
    if onnx_files(folder):
        run.console.log(
            f"onnx/ is of these weights as they are, and left out: authface models export {shell_word(out)}"
        )
    if run.dry_run:
        size = packing.planned_bytes(files, dtype)
        said = "\n".join([*map(one_line, names), f"would write {len(names):,} files, about {size / 1e6:,.1f} MB"])
        return run.console.result(said, files=names, bytes=size, dtype=str(dtype))
    need("authface models pack", "restore", "torch")
    with run.console.progress("pack", len(files), "files") as tick:
        done = packing.pack(folder, out, dtype, tick)
    listed = "\n".join(f"{facts.bytes:>14,}  {one_line(name)}" for name, facts in sorted(done.files.items()))
    total = f"{done.parameters / 1e6:,.1f} M parameters in {done.dtype}, {done.bytes / 1e6:,.1f} MB"
    run.console.result(
        f"{listed}\npacked {total}: {one_line(out)} ({len(done.files):,} files and {MANIFEST})",
        out=str(out),
        dtype=done.dtype,
        parameters=done.parameters,
        bytes=done.bytes,
        files={name: facts.sha256 for name, facts in done.files.items()},
    )


@app.command("export")
@command_with_run
def models_export(
    run: Run,
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="tiny, or a folder such as models/authface.")],
    out: Annotated[
        Path | None, typer.Option("-o", metavar="FOLDER", help="Where onnx/ is made; else the family's own folder.")
    ] = None,
    preset: Annotated[str, typer.Option(help="The preset whose steps and prompts it holds.")] = "quality",
) -> None:
    """Export a family's restoring as ONNX into onnx/: authface restore then needs no torch for that preset.

    Each graph is compared with its network. An earlier onnx/ is replaced. Needs the extra onnx.
    """
    from authface.models import families
    from authface.models.layout import in_bytes
    from authface.models.sampling import PresetName

    source = families.resolve(family)
    if preset not in get_args(PresetName):
        raise UsageError(f"--preset {one_line(preset, 60)}: there are {', '.join(get_args(PresetName))}")
    if out is None and (not source.local or family in families.FAMILIES):
        where = "is part of the installation" if source.local else "lies in the hub's cache"
        raise UsageError(f"{one_line(family)} {where}: name a folder with -o")
    out = Path(source.location) if out is None else out.expanduser()
    if run.dry_run:
        return run.console.result(f"would write {one_line(out)}/onnx", out=str(out), preset=preset)
    need("models export", "onnx", "torch", "diffusers", "transformers", "onnx", "onnxscript")
    from authface.models.export import export

    with run.console.progress("export", None, "graphs") as tick:
        told = export(source, out, preset, tick)  # type: ignore[arg-type]  # one of the names
    size = sum(facts.bytes for facts in told.files.values())
    run.console.result(
        f"{one_line(out)}/onnx: {', '.join(told.files)}, {in_bytes(size)}, preset {preset}, {told.side} px",
        out=str(out / "onnx"),
        preset=preset,
        side=told.side,
        opset=told.opset,
        bytes=size,
        files={name: facts.sha256 for name, facts in told.files.items()},
    )


@app.command("list")
@command_with_run
def models_list(run: Run) -> None:
    """Every model by name: where it is, its licence, whether that allows commercial use, its size.

    Nothing is downloaded. Those from `gfpgan` on restore faces only; AUTHFACE_NETWORKS is the folder of their files.
    """
    from authface.models.verify import inventory, table

    rows = inventory()
    run.console.result(
        table(rows),
        models=[
            {
                "name": row.name,
                "where": row.state,
                "licence": row.licence,
                "commercial": row.commercial,
                "parameters": row.parameters,
                "bytes": row.bytes,
                "folder": row.folder and str(row.folder),
                "repository": row.location,
                "missing": row.missing,
                "next": row.advice,
            }
            for row in rows
        ],
    )


@app.command("pull")
@command_with_run
def models_pull(
    run: Run,
    name: Annotated[str, typer.Argument(help="A name of authface models list, or owner/repository on the hub.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Copy it there too, for a machine without the hub.")
    ] = None,
    commercial: Annotated[
        bool, typer.Option("--commercial", help="Refuse what is not known to allow commercial use.")
    ] = False,
) -> None:
    """Download a model; its licence and size are shown first. A cut download is gone on with.

    Families go into the hub's cache: HF_ENDPOINT names a mirror, HF_HOME where it lies, HF_TOKEN the token for what
    asks for consent. Networks of one file go into AUTHFACE_NETWORKS; AUTHFACE_MIRROR is an address that has such files.
    """
    from authface.models import hub, networks

    out = out.expanduser() if out else None
    if commercial:
        _check_commercial(name)
    if (network := networks.known(name)) is not None:
        return _pull_network(run, network, out)
    source = hub.hub_source(name)
    folder, licence = _pulled(run, source, out)
    if folder is None:
        return
    files = hub.snapshot_files(folder)
    size = sum(path.stat().st_size for path in files)
    if out is not None:
        from authface.models.publish import copy_family

        with run.console.progress("copy", len(files), "files") as tick:
            copy_family(files, folder, out, tick)
        folder = out
    run.console.result(f"{folder}", name=name, folder=str(folder), licence=licence, files=len(files), bytes=size)


def _check_commercial(name: str) -> None:
    """Raise UsageError for a model that is not known to allow commercial use."""
    from authface.models import networks
    from authface.models.families import FAMILIES

    found = networks.known(name) or FAMILIES.get(name)
    if found is None:
        raise UsageError(
            f"--commercial: the licence of {one_line(name, 80)} is not known here: read it, then leave the flag out"
        )
    if found.commercial != "yes":
        said = "forbids commercial use" if found.commercial == "no" else "leaves commercial use unclear"
        raise UsageError(f"--commercial: the licence of {found.name} {said} ({found.licence})")


def _pull_network(run: Run, network: Network, out: Path | None) -> None:
    """Download a network's file, and copy it into the folder `out`."""
    from authface.files import replacing
    from authface.models import hub, networks
    from authface.models.layout import in_bytes

    to_download = 0 if network.path.is_file() else network.bytes - network.downloaded_bytes
    known = f"sha256 {network.sha256}, observed by {network.observed}" if network.sha256 else "no sha256 is known of it"
    run.console.log(f"{network.name}: licence {network.licence}; commercial use: {network.commercial}")
    run.console.log(f"{network.file}: {in_bytes(network.bytes)}, of which {in_bytes(to_download)} to download; {known}")
    places = [(networks.folder(), to_download), *([(out, network.bytes)] if out else [])]
    hub.check_room(network.name, places, f"{networks.FOLDER} to a folder")
    if run.dry_run:
        return run.console.result("nothing was downloaded", files={network.file: network.bytes}, bytes=network.bytes,
                                  to_download=to_download, licence=network.licence)  # fmt: skip
    file = networks.fetch(network, run.console)
    path = file.path
    if out is not None:
        path = out / network.file
        with replacing(path) as temporary:
            shutil.copyfile(file.path, temporary)
    run.console.result(f"{one_line(path)}", name=network.name, folder=str(path.parent), licence=network.licence,
                       files=1, bytes=network.bytes, sha256=file.sha256)  # fmt: skip


def _pulled(run: Run, source: ModelSource, out: Path | None) -> tuple[Path | None, str]:
    """The folder in the cache (None for a dry run) and the licence."""
    from authface.models import hub, hub_cache
    from authface.models.layout import in_bytes

    name = one_line(source.location)
    if source.licence:
        run.console.log(f"{name}: licence {source.licence}")
    try:
        offered = hub.remote_family(source)
    except AuthfaceError as error:
        if (folder := hub.complete_snapshot(source)) is None:
            raise
        run.console.log(f"{one_line(error)}; what the cache holds of it is whole")
        return (None if run.dry_run else folder), source.licence
    if not source.licence:
        run.console.log(f"{name}: licence {one_line(offered.licence) or 'not stated: read its page before you use it'}")
    said = (
        f"{len(offered.files):,} files, {in_bytes(offered.bytes)}, of which {in_bytes(offered.to_download)} to download"
    )
    run.console.log(f"{name}: {said}")
    places = [(hub_cache.cache_folder(), offered.to_download), *([(out, offered.bytes)] if out else [])]
    hub.check_room(offered.repository, places, "HF_HOME to a folder")
    if run.dry_run:
        run.console.result("nothing was downloaded", files=offered.files, bytes=offered.bytes,
                           to_download=offered.to_download, licence=offered.licence)  # fmt: skip
        return None, offered.licence
    return hub.download_family(source), offered.licence


@app.command("verify")
@command_with_run
def models_verify(
    run: Run,
    name: Annotated[
        str,
        typer.Argument(metavar="[NAME|PATH]", help="A name, a folder, a network's file or owner/repository; or all."),
    ] = "",
) -> None:
    """Check a model's files: their sha256, no pickles, whole headers, parts that fit. One line a bad file, exit code 1.

    sha256 are compared with weights.json, with what the hub called the files, or with what is known of a network;
    nothing is downloaded.
    """
    from authface.models.verify import inventory, verify

    named = name not in {"", "all"}
    names = [name] if named else [row.name for row in inventory() if row.folder is not None]
    if not names:
        raise AuthfaceError("no model is on this machine: authface models pull sdxl, or name a folder")
    reports = []
    for name in names:
        with run.console.progress(f"verify {one_line(name, 60)}", None, "files") as tick:
            reports.append(verify(name, tick))
    text = "\n".join(report.to_text() for report in reports)
    run.console.result(text, models=[report.as_json() for report in reports])
    if any(report.faults for report in reports):
        raise typer.Exit(1)


@app.command("push")
@command_with_run
def models_push(
    run: Run,
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="tiny, or a folder such as models/authface.")],
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="OWNER/NAME of a model on the hub.")],
    public: Annotated[bool, typer.Option("--public", help="Everybody may read it; else it is private.")] = False,
    rights: Annotated[
        bool,
        typer.Option("--i-hold-the-rights", help="Weights whose card names no licence that is recognised are yours."),
    ] = False,
) -> None:
    """Publish a family on the hub: parts, graphs, index, presets and card; checkpoints and caches stay.

    The token is HF_TOKEN or that of `hf auth login`. What an earlier family left there and this one lacks is deleted.
    """
    from authface.models.hub import check_name, repository
    from authface.models.publish import plan

    check_name(repo_id)
    with run.console.progress("check", None, "files") as tick:
        planned = plan(family, rights=rights, tick=tick)
    listed = "\n".join(f"{count:>14,}  {one_line(name)}" for name, count in planned.files.items())
    told = f"{len(planned.files):,} files, {planned.bytes / 1e6:,.1f} MB"
    about = f"licence: {one_line(planned.licence) or 'none in its card; the rights are yours, you say'}"
    about += f"; from {one_line(planned.base)}, whose licence holds too" if planned.base else ""
    known = {"licence": planned.licence, "base": planned.base, "files": dict(planned.files), "bytes": planned.bytes}
    if run.dry_run:
        said = f"{listed}\n{about}\nwould send {told} to {one_line(repo_id)}; nothing was sent"
        return run.console.result(said, **known)
    there = repository(repo_id, public=public, kind="model")
    there.check()
    run.console.log(f"push: {told} to {one_line(repo_id)}")
    commit = there.upload(
        planned.folder, patterns=list(planned.files), stale=planned.stale, message="authface models push"
    )
    run.console.result(f"{listed}\n{about}\nsent {told}: {one_line(commit)}", **known, commit=commit)
