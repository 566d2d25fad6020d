"""Recipes and overrides: every name is known, every value checked, every error one line with the next step."""

import re
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import Field, ValidationError
from typer.testing import CliRunner

from authface.errors import UsageError
from authface.options import SECTIONS
from authface.recipe import Settings, builtin_recipes, load
from tests.conftest import Install


class Inner(Settings):
    """A table below a table."""

    api_base: str = "https://example.org"
    retries: int = 3


class Filter(Settings):
    """Settings of a stage."""

    size: int = Field(512, ge=64)
    lr: float = 1e-4
    name: str = "a"
    flag: bool = False
    metric: Literal["piqe", "musiq"] = "piqe"
    sizes: tuple[int, ...] = (1, 2)
    unsplash: Inner = Inner()


class Restore(Settings):
    """Settings of another."""

    steps: int = 50


KNOWN = {"curate.filter": f"{__name__}:Filter", "restore": f"{__name__}:Restore"}


def filtered(*overrides: str, recipe: str = "default") -> Filter:
    return load(recipe, list(overrides), KNOWN).section("curate.filter", Filter)


def refused(*overrides: str, recipe: str = "default") -> str:
    with pytest.raises(UsageError) as caught:
        filtered(*overrides, recipe=recipe)
    message = str(caught.value)
    assert message.isprintable() and caught.value.exit_code == 2
    return message


def written(folder: Path, text: str) -> str:
    (folder / "mine.toml").write_text(text, "utf-8")
    return str(folder / "mine.toml")


def test_every_built_in_recipe_is_valid_for_every_stage() -> None:
    assert "default" in builtin_recipes()
    for name in builtin_recipes():
        assert load(name, [], SECTIONS).name == name


@given(st.integers(64, 10**9), st.floats(allow_nan=False), st.booleans(), st.lists(st.integers()))
def test_values_arrive_as_typed(size: int, lr: float, flag: bool, sizes: list[int]) -> None:
    made = filtered(
        f"curate.filter.size={size}",
        f"curate.filter.lr={lr!r}",
        f"curate.filter.flag={str(flag).lower()}",
        f"curate.filter.sizes={sizes}",
    )
    assert (made.size, made.lr, made.flag, made.sizes) == (size, lr, flag, tuple(sizes))


@given(st.text(min_size=1))
def test_text_needs_no_quotes_unless_it_is_toml(text: str) -> None:
    import tomllib

    try:
        tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        assert filtered(f"curate.filter.name={text}").name == text
    quoted = "".join(f"\\U{ord(c):08x}" for c in text if not "\ud800" <= c <= "\udfff")
    assert filtered(f'curate.filter.name="{quoted}"').name == text.encode("utf-8", "ignore").decode()


@pytest.mark.parametrize(
    "text", ["2026", "2026-01-31", "12:30:00", "3.5", "a=b", "/photos #1", "x,y", "1\nsize=3", "[" * 5000]
)
def test_names_that_look_like_something_else_stay_text(text: str) -> None:
    assert filtered(f"curate.filter.name={text}").name == text


@given(st.text(), st.text())
def test_any_override_is_taken_or_refused_in_one_line(path: str, text: str) -> None:
    assume(path.strip() not in {"curate.filter.name"})
    refused(f"{path}={text}" if "=" not in path else path)


@given(st.sampled_from(["size", "lr", "flag", "metric", "sizes", "unsplash"]), st.text())
def test_any_value_is_taken_or_refused_in_one_line(field: str, text: str) -> None:
    try:
        made = filtered(f"curate.filter.{field}={text}")
    except UsageError as error:
        assert str(error).isprintable() and f"curate.filter.{field}" in str(error)
    else:
        assert isinstance(made, Filter)


@given(st.sampled_from(sorted(Filter.model_fields)), st.integers(0, 20), st.sampled_from("abcxyz_"))
def test_a_slip_of_the_finger_is_met_with_the_right_name(field: str, place: int, letter: str) -> None:
    assume(len(field) > 3)
    slip = field[: place % len(field)] + letter + field[place % len(field) :]
    assume(slip not in Filter.model_fields)
    message = refused(f"curate.filter.{slip}=1")
    assert "did you mean curate.filter." in message
    if field not in {"size", "sizes"}:
        assert f"did you mean curate.filter.{field}?" in message


def test_names_are_suggested_where_they_belong() -> None:
    assert "did you mean curate.filter.unsplash.api_base?" in refused("curate.filter.unsplash.api_bass=x")
    assert "there are api_base, retries" in refused("curate.filter.unsplash.zzzzzz=1")
    assert "did you mean curate.filter?" in refused("curate.filtr.size=3")
    assert "did you mean restore?" in refused("restor.steps=3")
    assert "there are curate.filter, restore" in refused("zzzzzz=3")
    assert "-O curate.filter.unsplash.retries=many: " in refused("curate.filter.unsplash.retries=many")
    assert "there are api_base" not in refused("curate.filter.name.x.y=1")


def test_a_value_out_of_range_names_value_and_limit() -> None:
    message = refused("curate.filter.size=12")
    assert message.startswith("-O curate.filter.size=12: ") and "64" in message
    assert "piqe" in refused("curate.filter.metric=niqe") and "niqe" in refused("curate.filter.metric=niqe")


@pytest.mark.parametrize("override", ["", "=", "size", ".=1", "a..b=1", "curate.filter.=1", ".curate=1"])
def test_an_override_that_is_none_says_how_to_write_it(override: str) -> None:
    assert "write it as path.to.setting=value" in refused(override)


def test_bytes_that_are_no_text_are_refused_in_one_line() -> None:
    """As a shell hands them over: `remember` could not write them, and pydantic cannot read them."""
    for override in ("curate.fetch.photographer=\udcffA", "curate.f\udcffetch.path=x"):
        with pytest.raises(UsageError, match="no UTF-8") as caught:
            load("default", [override], SECTIONS)
        assert str(caught.value).isprintable() and "\\udcff" in str(caught.value)


def test_overrides_apply_in_order_and_over_the_file(tmp_path: Path) -> None:
    recipe = written(tmp_path, "[curate.filter]\nsize = 128\nlr = 0.5\n[restore]\nsteps = 7\n")
    made = filtered("curate.filter.size=256", "curate.filter.size=300", recipe=recipe)
    assert (made.size, made.lr) == (300, 0.5)
    assert load(recipe, [], KNOWN).section("restore", Restore, {"steps": 9}).steps == 9, "a flag wins"
    assert "restore.steps" in refused("curate.filter.size=256", recipe=written(tmp_path, "restore.steps = 'x'")), (
        "a mistake in another stage's table shows before work starts"
    )
    assert "not a table" in refused("curate.filter.x.y=1", recipe=written(tmp_path, "[curate.filter]\nx = 1\n"))


def test_recipe_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    cases: dict[str, str] = {
        "nothing": "one of default",
        str(tmp_path): "give a .toml file",
        "x" * 300: "name too long",
        "nul\0": "give a .toml file",
        "a\nb\udcff": "give a .toml file",
        str(tmp_path / "latin.toml"): "cannot read",
        written(tmp_path, "size = = 3"): "is not TOML",
    }
    for name, wanted in cases.items():
        assert wanted.lower() in refused(recipe=name).lower(), name


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    assert filtered(recipe=written(tmp_path, "\ufeff[curate.filter]\nsize = 99\n")).size == 99


def test_settings_cannot_change_and_their_fingerprint_tells_them_apart() -> None:
    made = filtered()
    with pytest.raises(ValidationError):
        made.size = 3  # type: ignore[misc]  # frozen, on purpose
    assert made.fingerprint() == filtered().fingerprint()
    values: list[dict[str, Any]] = [{"size": 65}, {"lr": 2e-4}, {"name": "b"}, {"unsplash": {"retries": 4}}]
    assert len({Filter.model_validate(v).fingerprint() for v in values} | {made.fingerprint()}) == 5


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("curate.fetch.source", "nobody", "no source nobody: there are folder, samples"),
        ("curate.filter.detector", "../../x", "no detector ../../x: there are retinaface"),
        ("curate.filter.metrics", '{"musik" = 60}', "metric musik is neither in pyiqa nor registered"),
        ("curate.filter.metrics", '{"psnr" = 60}', "metric psnr compares with a reference"),
        ("annotate.tags.annotator", "nobody", "no captioner nobody: there are llava, measured, openai"),
    ],
)
def test_a_backend_that_is_not_installed_is_refused_by_every_command(setting: str, value: str, said: str) -> None:
    """Wherever in the recipe it stands, with what there is and what to install."""
    with pytest.raises(UsageError, match=f"^-O {re.escape(setting)}=.*: .*{re.escape(said)}") as caught:
        load("default", [f"{setting}={value}"], SECTIONS)
    assert str(caught.value).isprintable()


def test_a_backend_of_another_package_is_taken_where_that_is_installed(install: Install) -> None:
    install("shoebox", "[authface.captioners]\nshoe_box = shoebox:S\n[authface.metrics]\nshine = shoebox:S\n", "")
    asked = ["annotate.tags.annotator=shoe_box", 'curate.filter.metrics={"shine"=1, "musiq"=60}']
    assert load("default", asked, SECTIONS).tables["annotate"] == {"tags": {"annotator": "shoe_box"}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fidelity", "nan"], "--fidelity nan: nan is no number"),
        (["--fidelity", "2"], "--fidelity 2.0: Input should be less than or equal to 1"),
        (["--min-identity", "7"], "--min-identity 7.0: "),
        (["--preset", "best"], "--preset best: Input should be 'quality'"),
        (["-O", "restore.grain=nan"], "-O restore.grain=nan: nan is no number"),
        (
            ["-O", "restore.fidelty=1"],
            "-O restore.fidelty=1: no setting restore.fidelty; did you mean restore.fidelity?",
        ),
        (["-O", "restor.grain=1"], "-O restor.grain=1: no settings called restor; did you mean restore?"),
        (["--recipe", "mine.toml"], "recipe mine.toml: restore.fidelity = 3: Input should be less than"),
        (["--recipe", "mine.toml", "--fidelity", "4"], "recipe mine.toml: restore.fidelity = 3: "),
    ],
)
def test_a_wrong_value_is_named_as_it_was_typed(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its flag, its -O, or its recipe; no recipe is named for what does not stand in one."""
    from authface.cli import app

    monkeypatch.chdir(tmp_path)
    written(tmp_path, "[restore]\nfidelity = 3\n")
    caught = CliRunner().invoke(app, ["restore", "old.jpg", *arguments]).exception
    assert isinstance(caught, UsageError) and str(caught).startswith(said)


def test_a_flag_of_another_name_is_named_as_it_was_typed(tmp_path: Path) -> None:
    from authface.cli import app

    caught = CliRunner().invoke(app, ["curate", "fetch", str(tmp_path / "set"), "--from", "nowhere"]).exception
    assert isinstance(caught, UsageError) and str(caught).startswith("--from nowhere: no source nowhere")


def test_a_place_of_a_value_below_a_table() -> None:
    """An override of a whole table, or of a value below what is asked for, is the origin as well."""
    recipe = load("default", ["curate.filter={size=100}"], KNOWN)
    assert recipe.origin("curate.filter.size") == "-O curate.filter={size=100}"
    assert recipe.origin("curate.filter.lr") == "-O curate.filter={size=100}"
    assert recipe.origin("restore.steps") == "recipe default"
    with pytest.raises(UsageError, match=r"^steps = nan: |^steps = NaN: "):
        recipe.section("restore", Restore, {"steps": float("nan")})
