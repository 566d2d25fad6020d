"""Sessions of ONNX Runtime: the devices there are, and errors of one line. Of a machine with a CPU alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from authface import devices
from authface.devices import CPU, PROVIDERS, providers, session
from authface.errors import AuthfaceError, UsageError
from authface.faces.detector import MOBILENET


def with_packages(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*(PROVIDERS[name] for name in names), CPU])


def test_auto_takes_what_is_there_and_the_cpu_last(monkeypatch: pytest.MonkeyPatch) -> None:
    with_packages(monkeypatch)
    assert providers() == providers("cpu") == [CPU]
    with_packages(monkeypatch, "mps", "cuda")
    assert providers() == [PROVIDERS["cuda"], CPU]
    assert providers("cuda:1") == [PROVIDERS["cuda"], CPU] and providers("mps") == [PROVIDERS["mps"], CPU]
    assert providers("cpu") == [CPU]


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu:1", "auto\n", "CUDAExecutionProvider"])
def test_another_device_is_an_error(device: str) -> None:
    with pytest.raises(UsageError, match="there are auto, cpu, cuda"):
        providers(device)


def test_a_device_without_its_package_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with_packages(monkeypatch)
    monkeypatch.setattr(devices, "has_nvidia", lambda: True)
    with pytest.raises(UsageError, match="pip install onnxruntime-gpu"):
        session(MOBILENET, "cuda")


def test_a_device_that_no_package_brings_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with_packages(monkeypatch)
    monkeypatch.setattr(devices, "has_nvidia", lambda: False)
    monkeypatch.setattr(devices.sys, "platform", "linux")
    for device, said in (("cuda:1", "no NVIDIA driver"), ("directml", "needs Windows"), ("mps", "needs a Mac")):
        with pytest.raises(UsageError, match=f"--device {device}: .*{said}.*: --device cpu") as caught:
            session(MOBILENET, device)
        assert "pip" not in str(caught.value)


def test_a_file_and_its_bytes_are_one_network_and_threads_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(MOBILENET.read_bytes())
    image = np.random.default_rng(0).normal(0, 50, (1, 3, 64, 64)).astype(np.float32)
    found = [session(of, "cpu", n).run(None, {"input": image}) for of, n in ((file, 1), (MOBILENET.read_bytes(), 2))]
    assert all(np.allclose(one, other, atol=1e-5) for one, other in zip(*found, strict=True))


def test_what_is_no_network_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    for wrong in (tmp_path / "no.onnx", tmp_path / "absent.onnx", b"nothing"):
        with pytest.raises(UsageError, match="is no ONNX network") as error:
            session(wrong)
        assert "\n" not in str(error.value) and "ONNXRuntimeError" not in str(error.value)


def test_a_package_whose_device_is_not_there_falls_back_for_auto_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As onnxruntime-gpu does on a machine without a GPU: the provider is listed, and no session has it."""
    with_packages(monkeypatch, "cuda")
    assert session(MOBILENET, "auto").get_providers() == [CPU]
    with pytest.raises(AuthfaceError, match="--device cpu"):
        session(MOBILENET, "cuda:0")
    assert capfd.readouterr() == ("", "")


def test_threads_are_those_of_the_process() -> None:
    made = session(MOBILENET, "cpu", 1).get_session_options()
    assert made.intra_op_num_threads == 1 and made.inter_op_num_threads == 1
    assert session(MOBILENET, "cpu").get_session_options().intra_op_num_threads == devices.cores()
