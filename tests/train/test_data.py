"""The dataset and the order it is read in."""

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import cv2
import datasets
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st

from authface.errors import AuthfaceError, UsageError
from authface.train.data import REGIONS, Batch, Draw, FaceDataset, Stream, draw, mirrored


def write_dataset(folder: Path, images: list[bytes], prompts: list[str | None]) -> Path:
    """A Hugging Face dataset folder as the export makes it: id, image, prompt, landmarks."""
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "image": datasets.Image(),
            "prompt": datasets.Value("string"),
            "landmarks": datasets.Array2D((68, 2), "float32"),
        }
    )
    rows = [
        {"id": f"face-{i}", "image": {"bytes": data, "path": None}, "prompt": prompt, "landmarks": [[0.0, 0.0]] * 68}
        for i, (data, prompt) in enumerate(zip(images, prompts, strict=True))
    ]
    (folder / "data").mkdir(parents=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    return folder


def png(rgb: np.ndarray) -> bytes:  # type: ignore[type-arg]
    """Lossless."""
    return cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A square face, a wide one, and a broken file."""
    astronaut = skimage.data.astronaut()
    square, wide = astronaut[0:192, 128:320], astronaut[0:128, 64:384]
    return write_dataset(tmp_path / "set", [png(square), png(wide), b"\x89PNG broken"], ["a, b", None, "c"])


def test_rows(dataset: Path) -> None:
    """The middle square at the asked size, mirrored when asked; prompts, ids, a limit."""
    faces = FaceDataset(dataset, 64)
    assert len(faces) == 3 and len(FaceDataset(dataset, 64, limit=2)) == 2
    assert faces.prompts() == ("a, b", "", "c") and faces.id(1) == "face-1"
    rgb = faces.rgb(0)
    assert rgb.shape == (64, 64, 3) and rgb.dtype == np.uint8
    assert np.array_equal(faces.rgb(0, flip=True), rgb[:, ::-1])
    middle = skimage.data.astronaut()[0:128, 160:288]
    assert np.array_equal(faces.rgb(1), cv2.resize(middle, (64, 64), interpolation=cv2.INTER_AREA))
    assert np.array_equal(FaceDataset(dataset, 192).rgb(0), skimage.data.astronaut()[0:192, 128:320])
    with pytest.raises(AuthfaceError, match="face-2"):
        faces.rgb(2)


def test_keys_follow_content_and_size(dataset: Path) -> None:
    """Latents of other pixels or another size are other latents."""
    faces = FaceDataset(dataset, 64)
    assert len({faces.key(0), faces.key(1), FaceDataset(dataset, 128).key(0)}) == 3
    assert faces.key(0) == FaceDataset(dataset, 64).key(0)


def test_no_dataset_is_said_in_one_line(tmp_path: Path) -> None:
    """Absent, empty, of other columns."""
    with pytest.raises(UsageError, match="authface annotate export"):
        FaceDataset(tmp_path / "absent", 64)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no exported dataset"):
        FaceDataset(tmp_path / "empty", 64)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="no exported dataset"):
        FaceDataset(tmp_path / "other", 64)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("roi", None, "roi of face-1 is None, not 3 x 3 finite numbers"),
        ("roi", dict.fromkeys(REGIONS, [math.inf, 0.0, 1.0]), "roi of face-1 is .*inf.*, not 3 x 3 finite numbers"),
        ("size", None, "size of face-1 is None, not a number above 0"),
        ("size", 0, "size of face-1 is 0, not a number above 0"),
        ("quad", [[math.nan, 0.0]] * 4, "quad of face-1 is .*nan.*, not 4 x 2 finite numbers"),
        ("landmarks", [[0.0, math.inf]] * 68, "landmarks of face-1 is .*, not 68 x 2 finite numbers"),
    ],
)
def test_a_column_that_is_no_number_is_told_of(column: str, value: object, said: str, tmp_path: Path) -> None:
    """A box that is not finite would end the process in ROI-align; no quad and no landmarks are faces without them."""
    whole = {
        "id": "face-0", "image": {"bytes": png(skimage.data.astronaut()), "path": None}, "size": 512,
        "roi": dict.fromkeys(REGIONS, [200.0, 200.0, 40.0]), "landmarks": [[1.0, 2.0]] * 68,
        "quad": [[0.0, 0.0], [0.0, 32.0], [32.0, 32.0], [32.0, 0.0]],
    }  # fmt: skip
    bare = {**whole, "id": "face-2", "quad": None, "landmarks": None}
    rows = datasets.Dataset.from_list([whole, {**whole, "id": "face-1", column: value}, bare])
    (tmp_path / "data").mkdir()
    rows.cast_column("image", datasets.Image()).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    faces = FaceDataset(tmp_path, 64)
    with pytest.raises(UsageError, match=said):
        _ = (faces.regions, faces.sides, faces.landmarks(1))
    assert FaceDataset(tmp_path, 64, limit=1).regions[0, 0].tolist() == pytest.approx([25.0625, 25.0625, 5])
    assert faces.landmarks(2) is None
    if column != "quad":
        assert faces.sides.tolist() == [32, 32, 64]


def test_a_row_without_its_image_is_told_of(tmp_path: Path) -> None:
    """Where it is read, and where the latents are looked for by its bytes."""
    folder = write_dataset(tmp_path / "set", [png(skimage.data.astronaut())] * 2, ["a", "b"])
    file = folder / "data" / "train-00000-of-00001.parquet"
    rows = datasets.Dataset.from_parquet(str(file)).cast_column("image", datasets.Image(decode=False)).to_list()
    rows[1]["image"] = None
    datasets.Dataset.from_list(rows).cast_column("image", datasets.Image()).to_parquet(file)
    faces = FaceDataset(folder, 64)
    for read in (faces.rgb, faces.key):
        with pytest.raises(AuthfaceError, match="image face-1 of the dataset: the row has none"):
            read(1)


@given(seed=st.integers(0, 2**32), count=st.integers(1, 40), passes=st.integers(1, 4))
def test_each_pass_shows_every_face_once(seed: int, count: int, passes: int) -> None:
    """An order of its own for each pass; the draws depend on nothing but their place."""
    draws = [draw(seed, count, position, True) for position in range(count * passes)]
    for epoch in range(passes):
        shown = draws[epoch * count : (epoch + 1) * count]
        assert sorted(d.index for d in shown) == list(range(count)) and {d.epoch for d in shown} == {epoch}
    assert draw(seed, count, count * passes - 1, True) == draws[-1]


def test_orders_and_flips_vary() -> None:
    """Passes differ, about half is mirrored, none where it is off."""
    draws = [draw(3, 100, position, True) for position in range(1000)]
    orders = {tuple(d.index for d in draws[e * 100 : e * 100 + 100]) for e in range(10)}
    assert len(orders) == 10
    assert 430 < sum(d.flip for d in draws) < 570
    assert not any(draw(3, 100, position, False).flip for position in range(100))


def _ids(draws: list[Draw]) -> Batch:
    return Batch(tuple(str(d.index) for d in draws))


def test_processes_share_the_stream() -> None:
    """Two processes of batch 3 show what one of batch 6 shows; batch k needs no batch before it."""
    one = Stream(_ids, 30, 6, 7, True)  # type: ignore[arg-type]
    two = [Stream(_ids, 30, 3, 7, True, process, 2) for process in range(2)]  # type: ignore[arg-type]
    for k in (4, 0, 2):
        assert one[k].ids == two[0][k].ids + two[1][k].ids
    assert Counter(i for k in range(5) for i in one[k].ids) == Counter(str(i) for i in range(30))


@given(st.text("leftrigh, ", max_size=40))
def test_mirroring_twice_is_the_prompt(prompt: str) -> None:
    assert mirrored(mirrored(prompt)) == prompt


def test_a_mirrored_face_has_a_mirrored_prompt() -> None:
    assert mirrored("light from the left, head turned to the right") == "light from the right, head turned to the left"
    assert mirrored("leftover, upright") == "leftover, upright"
    assert mirrored("Left eye closed, RIGHT side dark") == "Right eye closed, LEFT side dark"


def test_a_folder_is_an_export_or_is_refused_with_the_one_that_was_meant(dataset: Path, tmp_path: Path) -> None:
    """A photo set opens as a dataset too, of its originals without prompts."""
    photoset = tmp_path / "faces"
    (photoset / "tables" / "photos").mkdir(parents=True)
    (photoset / "photos").mkdir()
    cv2.imwrite(str(photoset / "photos" / "a.png"), skimage.data.astronaut())
    for folder in (photoset, photoset / "photos"):
        with pytest.raises(UsageError, match=rf"no exported dataset.*annotate export {photoset}"):
            FaceDataset(folder, 64)
    shutil.copytree(dataset, photoset / "dataset")
    (photoset / "dataset" / "authface.json").write_text('{"settings": {"format": "dataset"}}')
    for folder in (photoset, photoset / "photos"):
        with pytest.raises(UsageError, match=rf"did you mean {photoset}/dataset"):
            FaceDataset(folder, 64)
    assert len(FaceDataset(photoset / "dataset", 64)) == 3
    for form in ("kohya", "webdataset"):
        (photoset / "dataset" / "authface.json").write_text(json.dumps({"settings": {"format": form}}))
        with pytest.raises(UsageError, match=f"export for {form}"):
            FaceDataset(photoset / "dataset", 64)


def test_content_is_that_of_the_rows_wherever_they_lie(dataset: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(dataset, tmp_path / "elsewhere"))
    assert FaceDataset(moved, 64).content == FaceDataset(dataset, 64).content
    assert FaceDataset(dataset, 64, limit=2).content != FaceDataset(dataset, 64).content


def test_an_image_of_a_pixel_is_no_face(tmp_path: Path) -> None:
    dot = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes()
    with pytest.raises(AuthfaceError, match="is 1 x 1 pixels, less than 16"):
        FaceDataset(write_dataset(tmp_path / "set", [dot], ["a"]), 64).rgb(0)
