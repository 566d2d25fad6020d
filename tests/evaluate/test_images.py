"""Outputs find their truths by name, and what is missing or too many is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authface.errors import UsageError
from authface.evaluate.images import Method, images_by_name, methods_of, pair

NAMES = st.lists(st.text("abcdefgh0123-_. é", min_size=1, max_size=12), unique=True, min_size=1, max_size=30)


def folder(root: str, names: list[str], ending: str = ".png") -> dict[str, Path]:
    return {name: Path(root) / f"{name}{ending}" for name in names}


@given(NAMES, st.randoms(), st.integers(0, 40))
def test_pairs_go_by_name_whatever_the_order(names: list[str], random: object, limit: int) -> None:
    shuffled = [list(names) for _ in range(3)]
    for order in shuffled:
        random.shuffle(order)  # type: ignore[attr-defined]
    found = pair(
        {"a": folder("a", shuffled[0], ".jpg"), "b": folder("b", shuffled[1])},
        folder("t", names),
        folder("i", shuffled[2]),
        limit,
    )
    expected = sorted(names)[:limit] if limit else sorted(names)
    assert [(p.name, p.method) for p in found] == [(name, method) for name in expected for method in "ab"]
    for p in found:
        assert p.output.name.startswith(p.name) and p.output.parent.name == p.method
        assert p.truth == Path("t") / f"{p.name}.png" and p.input == Path("i") / f"{p.name}.png"


@given(NAMES, st.data())
def test_a_missing_and_an_extra_output_is_named(names: list[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(names))
    rest = [name for name in names if name != gone]
    with pytest.raises(UsageError) as said:
        pair({"a": folder("a", names), "b": folder("b", rest)}, folder("t", names), None)
    assert "--outputs b lacks 1 images" in str(said.value) and str(said.value).endswith(f": {gone}")
    with pytest.raises(UsageError, match="--outputs a has 1 images that the others lack"):
        pair({"a": folder("a", names)}, folder("t", rest), None)
    with pytest.raises(UsageError, match="--inputs lacks 1 images"):
        pair({"a": folder("a", names)}, None, folder("i", rest))


def test_ten_names_are_listed_and_the_rest_counted() -> None:
    names = [f"face{n:02d}" for n in range(25)]
    with pytest.raises(UsageError) as said:
        pair({"a": folder("a", names[:3])}, folder("t", names), None)
    assert "lacks 22 images" in str(said.value) and "face12, ..." in str(said.value) and "face13" not in str(said.value)
    assert len(pair({"a": folder("a", names[:3])}, folder("t", names), None, limit=3)) == 3


def test_methods_have_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x=y").mkdir()
    monkeypatch.chdir(tmp_path)
    assert methods_of(["ours=out/a", "x=y"]) == [Method("ours", Path("out/a")), Method("x=y", Path("x=y"))]
    assert methods_of(["."])[0].name == tmp_path.name
    for given_, said in (
        ([], "no outputs"),
        (["a=1", "a=2"], "two are called 'a'"),
        ([" =1"], "a name"),
        (["r/out", "s/out"], "NAME=DIR"),
    ):
        with pytest.raises(UsageError, match=said):
            methods_of(given_)


def test_a_folder_gives_its_own_images(tmp_path: Path) -> None:
    for name in ("a.png", "b.JPG", ".hidden.png", ".tmp-1.png", "restore.jsonl", "restore.html", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert images_by_name(tmp_path, "truth") == {"a": tmp_path / "a.png", "b": tmp_path / "b.JPG"}
    (tmp_path / "a.jpg").touch()
    with pytest.raises(UsageError, match=r"--truth: a.jpg and a.png have one name"):
        images_by_name(tmp_path, "truth")
    with pytest.raises(UsageError, match="no such folder"):
        images_by_name(tmp_path / "gone", "truth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no images"):
        images_by_name(tmp_path / "empty", "inputs")


def test_one_name_in_two_unicode_forms_is_one_name(tmp_path: Path) -> None:
    for at, name in (("truth", "Ren\u00e9e"), ("out", "Rene\u0301e")):
        (tmp_path / at).mkdir()
        (tmp_path / at / f"{name}.png").write_bytes(b"")
    truth, out = (images_by_name(tmp_path / at, at) for at in ("truth", "out"))
    assert len(pair({"a": out}, truth, None)) == 1
