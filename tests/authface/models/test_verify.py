"""`authface models list|verify|pull`: folders, the hub's cache as its real client fills it, and what is wrong there."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from authface.errors import AuthfaceError, UsageError
from authface.files import sha256_of
from authface.models import families as models
from authface.models import hub_cache, publish
from authface.models.networks import NETWORKS
from authface.models.verify import VerifyReport, inventory, verify

Run = Callable[..., Any]
Spoil = Callable[[Path], None]
UNET = "unet/diffusion_pytorch_model.safetensors"
REPOSITORY = "anna/faces"


@pytest.fixture(scope="module")
def packed(whole_family: Path) -> Path:
    """A packed family with a ControlNet and a cleaner."""
    (whole_family / "README.md").write_text("---\nlicense: other\nlicense_name: research\n---\n# faces\n")
    out = whole_family.parent / "packed"
    publish.pack(whole_family, out, "float16", lambda done, note: None)
    return out


@pytest.fixture
def copy(packed: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(packed, tmp_path / "copy"))


@pytest.fixture
def filled(hub: Any, packed: Path) -> Any:
    """The stand-in of the hub with that family, and files that nobody wants."""
    names = {p.relative_to(packed).as_posix(): p.read_bytes() for p in packed.rglob("*") if p.is_file()}
    del names["weights.json"]
    hub.add(REPOSITORY, False, {**names, "unet/model.fp16.safetensors": b"stays", "vae_1_0/x.json": b"stays"})
    return hub


def check(folder: Path) -> VerifyReport:
    return verify(str(folder), lambda done, note: None)


def test_a_packed_family_is_whole(packed: Path) -> None:
    """All files, against weights.json."""
    found = check(packed)
    assert found.faults == {} and found.against == "weights.json" and found.files == 19
    assert found.bytes == sum(p.stat().st_size for p in packed.rglob("*") if p.is_file() and p.name != "weights.json")
    assert "whole, 19 files" in found.to_text()


def test_without_a_list_of_sha256_it_says_that_contents_are_unchecked(copy: Path) -> None:
    """The rest is looked at all the same."""
    (copy / "weights.json").unlink()
    found = check(copy)
    assert found.faults == {} and found.against == "" and "contents are unchecked" in found.to_text()
    (copy / "unet" / "x.pt").write_bytes(b"")
    assert set(check(copy).faults) == {"unet/x.pt"}


def _flip(folder: Path) -> None:
    data = bytearray((folder / UNET).read_bytes())
    data[-1] ^= 1
    (folder / UNET).write_bytes(data)


def _cut(folder: Path) -> None:
    (folder / UNET).write_bytes((folder / UNET).read_bytes()[:-1])


def _delete(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink()


def _add(folder: Path) -> None:
    (folder / "vae" / "more.json").write_text("{}")


def _pickle(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"\x80")


def _list(folder: Path) -> None:
    (folder / "weights.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "file", "said"),
    [
        (_flip, UNET, "another sha256"),
        (_cut, UNET, "bytes, weights.json says"),
        (_delete, "tokenizer/tokenizer.json", "is missing"),
        (_add, "vae/more.json", "is not in weights.json"),
        (_pickle, "vae/diffusion_pytorch_model.bin", "is a pickle"),
        (_list, "weights.json", "is broken"),
    ],
)
def test_a_bad_file_is_one_line(copy: Path, spoil: Spoil, file: str, said: str) -> None:
    """By its name, alone."""
    spoil(copy)
    found = check(copy)
    assert list(found.faults) == [file] and said in found.faults[file]
    assert found.to_text().count("\n") == 0 and file in found.to_text()


def _header(folder: Path) -> None:
    (folder / UNET).write_bytes(b"\xff" * 64)


def _part(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder_2")


def _wider(folder: Path) -> None:
    """A configuration of another model: its ControlNet does not fit any more either, but that is not asked yet."""
    config = folder / "vae" / "config.json"
    config.write_text(config.read_text().replace('"block_out_channels": [\n    8', '"block_out_channels": [\n    16'))


def _fewer(folder: Path) -> None:
    weights = load_file(folder / UNET)
    del weights["conv_in.bias"]
    save_file(weights, folder / UNET, metadata={"format": "pt"})


def _other_text(folder: Path) -> None:
    models.make_tiny(folder.parent / "other", seed=0, image_size=64)
    config = folder / "text_encoder" / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 64', '"hidden_size": 32'))


def _narrow(folder: Path) -> None:
    config = folder / "cleaner" / "config.json"
    config.write_text(config.read_text().replace('"block_out_channels": [\n    16', '"block_out_channels": [\n    24'))


def _latents(folder: Path) -> None:
    config = folder / "vae" / "config.json"
    config.write_text(config.read_text().replace('"latent_channels": 4', '"latent_channels": 8'))


@pytest.mark.parametrize(
    ("spoil", "file", "said"),
    [
        (_header, UNET, "is broken"),
        (_part, "text_encoder_2", "is missing"),
        (_wider, "vae", "different models"),
        (_narrow, "cleaner", "different models"),
        (_fewer, "unet", "1 tensors of shape"),
        (_other_text, "model_index.json", "text encoders are 96 wide"),
        (_latents, "model_index.json", "latent channels differ"),
    ],
)
def test_what_no_sha256_would_show(copy: Path, spoil: Spoil, file: str, said: str) -> None:
    """Broken headers, parts that lack, that do not fit their configuration, and that do not fit each other."""
    (copy / "weights.json").unlink()
    spoil(copy)
    found = check(copy)
    assert list(found.faults) == [file] and said in found.faults[file], found.faults


def test_what_is_not_here(tmp_path: Path, on_hub: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A family of the hub that was not pulled, a folder that is none, a name of nothing."""
    with pytest.raises(AuthfaceError, match="not on this machine: authface models pull sdxl"):
        check(Path("sdxl"))
    with pytest.raises(UsageError, match="no model folder"):
        check(tmp_path)
    monkeypatch.setattr(models, "BUILTIN", tmp_path / "absent")
    done = on_hub("models", "verify", "tiny")
    assert done.returncode == 1 and "is not in this installation" in done.stderr
    assert on_hub("models", "verify").returncode == on_hub("models", "verify", "all").returncode == 1
    listed = on_hub("models", "list")
    assert listed.returncode == 0 and listed.stdout.count("not here") == 3 + len(NETWORKS)
    assert "install authface again" in listed.stdout and "authface models pull sdxl" in listed.stdout


def test_the_built_in_model_is_listed_and_verified(copy: Path, on_hub: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the numbers of its own list; a flipped bit ends with exit code 1 and one line."""
    monkeypatch.setattr(models, "BUILTIN", copy)
    (row, *_) = json.loads(on_hub("models", "list", "--json").stdout)["models"]
    assert row["where"] == "built in" and row["licence"] == "research, non-commercial"
    assert row["bytes"] == sum(p.stat().st_size for p in copy.rglob("*") if p.is_file() and p.name != "weights.json")
    assert models.resolve("tiny").location == str(copy)
    whole = on_hub("models", "verify")
    assert whole.returncode == 0 and whole.stdout.startswith("tiny: whole")
    seen: list[str | None] = []
    report = verify("tiny", lambda done, note=None: seen.append(note))
    assert len(seen) == len(set(seen)) == report.files  # what the progress counts is what the line says
    _flip(copy)
    broken = on_hub("models", "verify", "tiny")
    assert broken.returncode == 1 and broken.stdout.count("\n") == 1 and UNET in broken.stdout
    told = on_hub("models", "verify", "tiny", "--json")
    assert told.returncode == 1 and list(json.loads(told.stdout)["models"][0]["faults"]) == [UNET]


def test_pull_says_licence_and_size_and_downloads_what_is_read(filled: Any, on_hub: Run, packed: Path) -> None:
    """Into the hub's cache; then it is listed, verified and loaded by its name, and pulled again at no cost."""
    dry = on_hub("models", "pull", REPOSITORY, "--dry-run", "--json")
    assert dry.returncode == 0 and hub_cache.cached(REPOSITORY) is None
    assert json.loads(dry.stdout)["to_download"] == json.loads(dry.stdout)["bytes"] > 1_000_000
    done = on_hub("models", "pull", REPOSITORY)
    assert done.returncode == 0, done.stderr
    first, second, *_ = done.stderr.splitlines()
    assert "licence not stated" in first and "19 files" in second and "to download" in second
    folder = Path(done.stdout.strip())
    assert (folder / UNET).read_bytes() == (packed / UNET).read_bytes()
    assert not any(path.read_bytes() == b"stays" for path in folder.rglob("*") if path.is_file())
    (row,) = (r for r in inventory() if r.name == REPOSITORY)
    assert row.state == "hub cache" and row.parameters.endswith(" M") and row.missing == ()
    again = on_hub("models", "pull", REPOSITORY, offline=True)
    assert again.returncode == 0 and "what the cache holds of it is whole" in again.stderr
    assert again.stdout == done.stdout


def test_the_cache_is_verified_by_what_the_hub_called_the_files(filled: Any, on_hub: Run) -> None:
    """The blobs' names are hashes of their contents; a flipped bit, a lost blob and a partial download are seen."""
    assert on_hub("models", "pull", REPOSITORY).returncode == 0
    assert on_hub("models", "verify", REPOSITORY, offline=True).returncode == 0
    cached = hub_cache.cached(REPOSITORY)
    assert cached is not None and cached.missing == []
    link = cached.folder / UNET
    blob = link.resolve()
    assert blob.name == hashlib.sha256(blob.read_bytes()).hexdigest()
    store = blob.parent.parent.parent / "blobs" / "ab" / ("f" * 64)  # as the store that repositories share
    store.parent.mkdir(parents=True)
    blob.rename(store)
    blob.symlink_to(os.path.relpath(store, blob.parent))
    assert on_hub("models", "verify", REPOSITORY, offline=True).returncode == 0
    data = bytearray(store.read_bytes())
    data[-1] ^= 1
    store.write_bytes(data)
    done = on_hub("models", "verify", REPOSITORY, offline=True)
    assert done.returncode == 1 and done.stdout.count("\n") == 1
    assert f"{UNET} is not what the hub calls {blob.name[:12]}" in done.stdout
    store.unlink()
    assert cached.missing == [UNET]
    assert on_hub("models", "verify", REPOSITORY, offline=True).stdout.count(UNET) == 1
    assert on_hub("models", "pull", REPOSITORY, offline=True).returncode == 1
    assert "partly here" in on_hub("models", "list", offline=True).stdout


def test_a_small_file_is_checked_as_git_names_it(tmp_path: Path) -> None:
    """The sha1 of `git hash-object`; a name that is no hash says nothing."""
    path = tmp_path / "a"
    path.write_bytes(b"hello\n")
    assert hub_cache.is_content(path, "ce013625030ba8dba906f756967f9e9ca394464a") is True
    assert hub_cache.is_content(path, "0" * 40) is False
    assert hub_cache.is_content(path, "abc-12") is None


def test_a_disk_without_links_is_verified_by_the_hubs_own_list(packed: Path, tmp_path: Path) -> None:
    """There a snapshot holds the files themselves, and trees/COMMIT.json what they are."""
    folder = Path(shutil.copytree(packed, tmp_path / "models--a--b" / "snapshots" / "c0ffee"))
    (folder / "weights.json").unlink()
    assert all("nothing in the hub's cache" in fault for fault in check(folder).faults.values())
    entries = {
        path.relative_to(folder).as_posix(): {"blob_id": "0" * 40, "lfs_sha256": sha256_of(path), "size": 1}
        for path in folder.rglob("*")
        if path.is_file()
    }
    tree = tmp_path / "models--a--b" / "trees" / "c0ffee.json"
    tree.parent.mkdir()
    tree.write_text(json.dumps({"format_version": 1, "files": entries}))
    assert check(folder).faults == {} and check(folder).against == "the hub"
    (folder / "scheduler" / "scheduler_config.json").unlink()
    assert "scheduler/scheduler_config.json" in check(folder).faults


def test_a_copy_for_a_machine_without_the_hub(filled: Any, on_hub: Run, packed: Path, tmp_path: Path) -> None:
    """Real files byte for byte, and a list of sha256 to verify them with there."""
    out = tmp_path / "usb" / "faces"
    assert on_hub("models", "pull", REPOSITORY, "--out", out).returncode == 0
    assert not any(path.is_symlink() for path in out.rglob("*"))
    names = {p.relative_to(packed).as_posix() for p in packed.rglob("*") if p.is_file()}
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == names
    assert all((out / name).read_bytes() == (packed / name).read_bytes() for name in names)
    (out / UNET).unlink()
    assert on_hub("models", "verify", out).returncode == 1
    assert on_hub("models", "pull", REPOSITORY, "--out", out, offline=True).returncode == 0, (
        "an earlier copy is replaced"
    )
    assert check(out).faults == {}
    assert on_hub("models", "pull", REPOSITORY, "--out", tmp_path, offline=True).returncode == 2


def test_what_cannot_be_pulled_is_one_line(hub: Any, on_hub: Run, filled: Any, packed: Path) -> None:
    """Offline, no server, no such repository, no family, no room, what is here anyway, wrong names."""

    def said(words: str, code: int, *arguments: object, **how: Any) -> None:
        done = on_hub("models", "pull", *arguments, **how)
        errors = [line for line in done.stderr.splitlines() if line.startswith("authface: ")]
        assert done.returncode == code and len(errors) == 1 and words in errors[0], done.stderr
        assert done.stdout == "" and hub_cache.cached(REPOSITORY) is None

    said("HF_HUB_OFFLINE", 1, "sdxl", offline=True)
    said("set HF_ENDPOINT to a mirror", 1, REPOSITORY, endpoint="http://127.0.0.1:9")
    said("the hub has no anna/nothing", 1, "anna/nothing")
    hub.add("anna/text", False, {"config.json": b"{}"})
    said("anna/text is no family in diffusers' layout", 1, "anna/text")
    said("built in", 2, "tiny")
    said("is a folder of this machine", 2, packed)
    said("no model", 2, "nothing")


def test_a_full_disk_is_said_before(filled: Any, on_hub: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the size, the folder and what is free; nothing is downloaded."""
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    done = on_hub("models", "pull", REPOSITORY)
    assert done.returncode == 1 and "1.0 kB are free" in done.stderr and "HF_HOME" in done.stderr
    assert hub_cache.cached(REPOSITORY) is None


def test_a_family_says_its_licence_before_the_hub_is_asked(on_hub: Run) -> None:
    """So that it is read even where the download fails."""
    done = on_hub("models", "pull", "sdxl", endpoint="http://127.0.0.1:9")
    assert done.returncode == 1 and done.stderr.splitlines()[0].endswith("licence CreativeML Open RAIL++-M")


def test_names_that_are_no_family_are_left_out_of_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other repositories of the cache: text models, data sets, broken folders."""
    monkeypatch.setattr(hub_cache, "cache_folder", lambda: tmp_path)
    for name in ("models--a--text/snapshots/c/unet", "datasets--a--b/snapshots/c", "models--broken"):
        (tmp_path / name).mkdir(parents=True)
    assert [row.name for row in inventory()] == ["tiny", "sdxl", "authface", *NETWORKS]
