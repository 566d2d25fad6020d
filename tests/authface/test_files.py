"""Files take their place whole, on systems where others hold them open too."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from authface import files
from authface.errors import AuthfaceError
from authface.files import replacing, replacing_folder, sweep, take_place, write_errors


def held_open(code: int) -> PermissionError:
    """What Windows says of a rename; only there has an error this attribute by itself."""
    error = PermissionError(13, "Access is denied")
    error.winerror = code
    return error


def refuse(monkeypatch: pytest.MonkeyPatch, errors: list[PermissionError]) -> None:
    """Let the first renames fail with `errors`, one each."""
    rename = Path.replace

    def held(self: Path, target: Path) -> Path:
        if errors:
            raise errors.pop(0)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", held)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_HELD_OPEN_PAUSES", (0.0,) * 5)


def test_a_rename_waits_for_a_scanner_that_holds_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    refuse(monkeypatch, [held_open(32), held_open(5)])
    take_place(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "new" and not (tmp_path / "new").exists()


def test_a_file_that_stays_open_is_one_line_and_both_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    refuse(monkeypatch, [held_open(32) for _ in range(6)])
    with pytest.raises(AuthfaceError, match="a.txt: no permission"), replacing(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("linked", [False, True])
def test_a_file_or_a_link_in_the_place_of_a_folder_is_said(linked: bool, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    if linked:
        folder.symlink_to("nowhere")
    else:
        folder.touch()
    said = "lies where a folder should be: choose another folder"
    with pytest.raises(AuthfaceError, match=said), write_errors(folder):
        folder.mkdir(exist_ok=True)


def test_a_refusal_that_no_wait_mends_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [PermissionError(13, "Permission denied") for _ in range(2)]
    refuse(monkeypatch, errors)
    with pytest.raises(PermissionError):
        take_place(tmp_path / "new", tmp_path / "old")
    assert len(errors) == 1


def test_a_durable_file_is_flushed_by_a_descriptor_that_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses to flush what is open for reading alone."""
    flags: dict[str, int] = {}
    opened = os.open

    def noted(path: Path, flag: int, *mode: int) -> int:
        flags["folder" if Path(path).is_dir() else "file"] = flag
        return opened(path, flag, *mode)

    monkeypatch.setattr(os, "open", noted)
    with replacing(tmp_path / "a.bin", durable=True) as temporary:
        temporary.write_bytes(b"1")
    assert flags["file"] & os.O_RDWR and not flags["folder"] & os.O_RDWR


def test_large_temporary_files_go_to_a_disk_unless_another_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where /tmp is memory, what was kept out of memory would be in it after all."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    disk, memory = tmp_path / "disk", tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr(files, "LARGE_TEMPORARY", disk)
    monkeypatch.setattr(tempfile, "tempdir", str(memory))
    assert files.room_for_large() == memory, "there is no such folder"
    disk.mkdir()
    assert files.room_for_large() == disk
    monkeypatch.setenv("TMPDIR", str(memory))
    assert files.room_for_large() == memory


def begin(folder: Path) -> subprocess.Popen[bytes]:
    """Another process that has begun a folder, and waits."""
    code = (
        "import sys; from pathlib import Path; from authface.files import replacing_folder\n"
        "with replacing_folder(Path(sys.argv[1])) as begun:\n"
        "    (begun / 'unet').mkdir(); (begun / 'unet' / 'half').touch(); print(flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdin=pipe, stdout=pipe)
    assert other.stdout is not None and other.stdout.readline()
    return other


@pytest.mark.skipif(sys.platform == "win32", reason="no folder is held there")
def test_a_folder_that_a_killed_run_began_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    living, killed = begin(tmp_path / "a"), begin(tmp_path / "b")
    killed.kill()
    killed.wait()
    with replacing_folder(tmp_path / "c") as begun:
        (begun / "file").write_text("whole")
    assert len(list(tmp_path.glob(".tmp-*"))) == 1
    living.communicate()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c"}
    assert (tmp_path / "a" / "unet" / "half").exists() and (tmp_path / "c" / "file").read_text() == "whole"


def test_a_folder_takes_the_place_of_one_or_of_a_link_and_comes_back_where_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "kept").touch()
    (tmp_path / "link").symlink_to("old")
    with replacing_folder(tmp_path / "link"):
        pass
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "old" / "kept").exists()

    rename = Path.replace
    refused = iter([False, True, False])

    def replace(self: Path, target: Path) -> Path:
        if next(refused):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(AuthfaceError, match="old: no permission"), replacing_folder(tmp_path / "old"):
        pass
    assert (tmp_path / "old" / "kept").exists() and {path.name for path in tmp_path.iterdir()} == {"old", "link"}


def test_a_folder_that_a_kill_kept_from_its_place_comes_back_the_next_time(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "kept").touch()
    code = (
        "import os, sys; from pathlib import Path; from authface import files\n"
        "rename, calls = files.take_place, []\n"
        "def take_place(new, path):\n"
        "    os._exit(9) if calls else calls.append(rename(new, path))\n"
        "files.take_place = take_place\n"
        "with files.replacing_folder(Path(sys.argv[1])) as begun: pass"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "old")], check=False).returncode == 9
    assert not (tmp_path / "old").exists()
    with replacing_folder(tmp_path / "other"):
        pass
    with pytest.raises(KeyError), replacing_folder(tmp_path / "old"):
        raise KeyError
    assert (tmp_path / "old" / "kept").exists()
    with replacing_folder(tmp_path / "old") as begun:
        (begun / "new").touch()
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {"old", "old/new", "other"}


def test_two_runs_that_end_at_once_in_one_folder(tmp_path: Path) -> None:
    """The first one's new folder is there, and its former one not yet deleted."""
    (tmp_path / "out").mkdir()
    with replacing_folder(tmp_path / "out") as begun:
        (begun / "second").touch()
        (tmp_path / ".tmp-out-old").mkdir()
        (tmp_path / ".tmp-out-old" / "former").touch()
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {"out", "out/second"}


def test_only_names_that_we_give_are_swept(tmp_path: Path) -> None:
    for name in (".tmp-mine", ".tmp-0123456789abc", "tmp-0123456789ab"):
        (tmp_path / name).mkdir()
    (tmp_path / ".tmp-0123456789ab").symlink_to(tmp_path / ".tmp-mine")
    sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
