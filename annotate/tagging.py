"""`annotate tags`: which step an annotator is, its run over the crops that people left in, and its report.

Of several annotators, which tags hold: who can say what, what excludes what, and the policies of `resolve`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal

from authface.annotate.captioners.captioner import (
    PROSE,
    Captioner,
    CaptionerRequest,
    CaptionStep,
    Unanswered,
    reread_parts,
    unanswered,
)
from authface.annotate.measured.tagger import MeasuredTags
from authface.annotate.settings import TagsSettings
from authface.annotate.vocabulary.vocabulary import MOST_TOKENS, OTHER, VOCABULARY, in_order, prompt
from authface.annotate.vocabulary.wording import parse_tags
from authface.backends import load_backend
from authface.engine.runner import CHUNK_ROWS, PartInput, Summary
from authface.engine.runner import run as run_parts
from authface.errors import AuthfaceError, ImageError, UsageError, one_line, shell_word
from authface.imaging import decode as images
from authface.options import Run
from authface.records import Crop, Tag, Tags
from authface.report import pages as report
from authface.review.reviews import ReviewedStep, ReviewSettings, reviewed_crops
from authface.store.photoset import PhotoSet, Table
from authface.store.rows import SortedRows

AnnotatedTags = Sequence[tuple[str, Sequence[Tag]]]
"""Annotators of one crop, the first one first, each with its tags."""
ChosenTags = list[tuple[str, Tag]]
"""Tags, each with the annotator it is of."""
Policy = Literal["first", "measured", "union", "agreed"]

MEASURED: Final = "measured"
MEASURABLE: Final = frozenset(
    {
        "close-up portrait", "facing the camera", "head turned to the left", "head turned to the right",
        "head tilted to the left", "head tilted to the right", "smiling", "mouth open", "mouth closed",
        "looking at the camera", "looking to the left", "looking to the right", "detailed skin texture", "smooth skin",
        "light from the left", "light from the right", "low key", "high key", "high contrast", "low contrast",
        "black and white", "toned monochrome", "warm tones", "cool tones", "vivid colours", "muted colours",
        "plain background", "white background", "black background", "grey background", "red background",
        "green background", "blue background", "shallow depth of field", "background in focus",
    }
)  # fmt: skip
"""Tags that `authface.annotate.measured.tagger` can give."""

Alternatives = tuple[frozenset[str], ...]


def _either(*alternatives: str) -> Alternatives:
    """Sets of tags, each written with bars between: what is in different ones cannot both be true of a crop."""
    return tuple(frozenset(name.strip() for name in text.split("|")) for text in alternatives)


EXCLUSIVE: Final[tuple[Alternatives, ...]] = (
    _either("close-up portrait | extreme close-up", "head and shoulders", "half-length portrait"),
    _either("child", "teenager", "young adult", "middle-aged", "elderly"),
    _either(
        "facing the camera",
        "head turned to the left",
        "head turned to the right",
    ),
    _either("facing the camera", "three-quarter view", "profile view"),
    _either("head tilted to the left", "head tilted to the right"),
    _either("chin raised", "chin lowered"),
    _either(
        "smiling | laughing",
        "neutral expression | serious expression | sad expression | angry expression | frowning",
    ),
    _either("mouth open | laughing", "mouth closed"),
    _either("teeth showing", "mouth closed"),
    _either("looking at the camera", "looking to the left", "looking to the right", "looking up", "looking down"),
    _either("looking at the camera", "looking away", "eyes closed"),
    _either("long hair", "short hair", "medium-length hair", "bald | shaved head"),
    _either("curly hair", "straight hair"),
    _either("clean-shaven", "beard | moustache | stubble | goatee"),
    _either("no makeup", "heavy makeup | red lipstick | smoky eyes | false eyelashes | face paint"),
    _either("smooth skin", "wrinkles | acne | blemishes | detailed skin texture"),
    _either("oily skin | dewy skin", "dry skin | matte skin"),
    _either("light from the left", "light from the right", "even light"),
    _either("hard light | direct flash", "soft light | softbox light"),
    _either("low key", "high key"),
    _either("dark tones", "bright tones"),
    _either("high contrast", "low contrast"),
    _either(
        "black and white",
        "toned monochrome | sepia",
        "warm tones | cool tones | vivid colours | pastel colours | earth tones | natural colours | cinematic colours",
    ),
    _either("toned monochrome", "vivid colours | natural colours"),
    _either("warm tones", "cool tones"),
    _either("vivid colours", "muted colours | faded colours"),
    _either("shallow depth of field | bokeh", "background in focus"),
    _either("sharp focus", "soft focus | motion blur"),
    _either("telephoto compression", "wide-angle distortion"),
    _either(
        "plain background",
        "textured background | colourful background | urban background | foliage background",
    ),
    _either("outdoor background", "indoor background | studio background"),
    _either(
        "white background", "black background", "grey background", "red background", "green background",
        "blue background", "brown background", "yellow background", "orange background", "pink background",
        "purple background",
    ),
    _either("dark background | black background", "light background | white background"),
)  # fmt: skip
"""What cannot be true together. Names within one alternative go well with each other."""


def _excluded() -> dict[str, frozenset[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for alternatives in EXCLUSIVE:
        for own in alternatives:
            for other in alternatives:
                if other is not own:
                    for name in own:
                        found[name] |= other - own
    return {name: frozenset(others) for name, others in found.items()}


EXCLUDED: Final = _excluded()
"""By name: the tags it excludes."""


def contradictions(ours: Iterable[str], theirs: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names, one of each side, that cannot both be true."""
    there = set(theirs)
    return [(name, other) for name in sorted(set(ours)) for other in sorted(EXCLUDED.get(name, frozenset()) & there)]


def can_say(annotator: str, name: str) -> bool:
    """Whether the tag is among those the annotator knows: pixels measure few of them, a captioner may say all."""
    return annotator != MEASURED or name in MEASURABLE


def choose(found: AnnotatedTags, least: float, policy: Policy = "first") -> ChosenTags:
    """Annotator and tag of what holds under `policy`, of the tags at least as sure as `least`; each name once.

    `first`: of a group that several speak of, the first annotator's. `measured`: what can be measured is the measures'
    to say, the rest the others'. `union`: what anybody says. `agreed`: what nobody who speaks of its group and knows
    the tag leaves out. Under the last three, a tag that contradicts one of an earlier annotator is left out; under
    `measured` the measures are the earliest.
    """
    sure = [(who, in_order(tag for tag in tags if tag.confidence >= least)) for who, tags in found]
    return _POLICIES[policy](sure)


def _first(found: AnnotatedTags) -> ChosenTags:
    owner: dict[str, str] = {}
    return [(who, tag) for who, tags in found for tag in tags if owner.setdefault(tag.group, who) == who]


def _measured(found: AnnotatedTags) -> ChosenTags:
    if MEASURED not in (who for who, _ in found):
        return _first(found)
    first = sorted(found, key=lambda entry: entry[0] != MEASURED)
    others = [(who, [tag for tag in tags if who == MEASURED or tag.name not in MEASURABLE]) for who, tags in first]
    return _union(others)


def _union(found: AnnotatedTags) -> ChosenTags:
    chosen: dict[str, tuple[str, Tag]] = {}
    for who, tags in found:
        before = frozenset(chosen)
        for tag in tags:
            if tag.name not in chosen and not EXCLUDED.get(tag.name, frozenset()) & before:
                chosen[tag.name] = (who, tag)
    return list(chosen.values())


def _agreed(found: AnnotatedTags) -> ChosenTags:
    names = {who: {tag.name for tag in tags} for who, tags in found}
    groups = {who: {tag.group for tag in tags} for who, tags in found}

    def holds(tag: Tag) -> bool:
        knowing = [who for who in names if tag.group in groups[who] and can_say(who, tag.name)]
        return all(tag.name in names[who] for who in knowing)

    return _union([(who, [tag for tag in tags if holds(tag)]) for who, tags in found])


_POLICIES: Final[dict[Policy, Callable[[AnnotatedTags], ChosenTags]]] = {
    "first": _first,
    "measured": _measured,
    "union": _union,
    "agreed": _agreed,
}


WITH_MODEL = ("llava", "openai")
"""Annotators that are asked a prompt and have a model of their own choosing."""


@dataclass(frozen=True)
class Tagged:
    """What a run did."""

    summary: Summary
    reread: int = 0
    """Parts whose answers were read again under other rules, without a model."""


def with_model(settings: TagsSettings, model: str | None) -> TagsSettings:
    """The settings with `model` in place of the annotator's own. Raises UsageError where it has none."""
    if model is None:
        return settings
    if settings.annotator not in WITH_MODEL:
        raise UsageError(f"--model {one_line(model)}: --with {settings.annotator} has no model; llava and openai have")
    chosen = getattr(settings, settings.annotator).model_copy(update={"model": model})
    return settings.model_copy(update={settings.annotator: chosen})


def tag(photoset: PhotoSet, settings: TagsSettings, review: ReviewSettings, run: Run, *, redo: bool = False) -> Tagged:
    """Tag the crops that are new or changed, all with `redo`; the caller holds the set's lock. Raises AuthfaceError."""
    kind: type[Captioner] | None = None
    if settings.annotator != MEASURED:
        kind = load_backend("captioners", settings.annotator)
    inputs = _crops_to_tag(photoset, review, run.limit)
    if not any(part.count for part in inputs):
        where = one_line(photoset.root)
        raise AuthfaceError(f"{where} has no kept crops to tag: authface curate report {shell_word(where)} says why")
    target = photoset.tags(settings.annotator)
    if kind is None:
        summary = run_parts(
            ReviewedStep(MeasuredTags(photoset.root, settings.measured)), inputs, target, run.console,
            workers=run.workers, cluster=run.cluster(), prune=not run.limit, redo=redo,
        )  # fmt: skip
        return Tagged(summary)
    cluster, devices = run.cluster(gpu=kind.gpu), run.devices()
    if devices and not kind.gpu:
        raise UsageError(f"--device {one_line(run.device)}: --with {settings.annotator} has no model on a device here")
    device = "cuda" if cluster is not None and cluster.gpu else devices.kind if devices else run.device
    captioner = kind.make(CaptionerRequest(settings, photoset, device))
    work = CaptionStep(photoset.root, captioner, settings)
    reread = reread_parts(target, work.provenance, settings)
    if reread:
        run.console.log(f"{reread} parts were read again under other rules; no model was asked")
    # One process a device: a model fills it; a server is asked by threads.
    ask = partial(
        run_parts, ReviewedStep(work), target=target, console=run.console, seats=devices.seats if devices else (),
        cluster=cluster, chunk_rows=max(CHUNK_ROWS, captioner.batch_size),
    )  # fmt: skip
    again = Unanswered() if redo else unanswered(inputs, target, work.provenance)
    summary = ask(inputs, prune=not run.limit, redo=redo)
    if again.inputs:
        run.console.log(f"{len(again.part_of):,} crops got no answer before and are asked for again")
        late = ask(again.inputs, prune=False, redo=True, finish=partial(again.merged, target))
        summary = Summary(
            summary.made + late.made, summary.skipped - late.made, summary.rows + late.rows,
            summary.seconds + late.seconds, late.counts,
        )  # fmt: skip
    return Tagged(summary, reread)


def _crops_to_tag(photoset: PhotoSet, review: ReviewSettings, limit: int) -> list[PartInput[Crop]]:
    """The crops as people left them; where a limit cuts a part, it knows what all of that part would be."""
    inputs = reviewed_crops(photoset, review, limit)
    if not limit:
        return inputs
    whole = {part.number: part.digest for part in reviewed_crops(photoset, review)}
    return [replace(part, whole=whole[part.number]) for part in inputs]


SAMPLE = 24
FAILED = 12
MOST_UNKNOWN = 100
"""Unknown words that are told, the most frequent."""
THUMBNAIL = 256


@dataclass
class AnnotatorCounts:
    """The tags, words and outcomes of one annotator over all crops."""

    annotator: str
    outcomes: Counter[str]
    tags: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By group and name."""
    unknown: dict[str, int] = field(default_factory=dict)
    """What its answers say that obeys the rules of tags and is no name there, and how often; `MOST_UNKNOWN` of all."""
    unknown_words: int = 0
    """How many such words there are."""
    dropped: int = 0
    """Pieces of its answers that are no tags."""
    long: int = 0
    """Prompts of more tokens than CLIP reads."""
    kept: list[Tags] = field(default_factory=list)
    failed: list[Tags] = field(default_factory=list)
    """Even samples."""


def count_tags(annotator: str, table: Table[Tags]) -> AnnotatorCounts:
    """Count an annotator's rows, in constant memory."""
    found = AnnotatorCounts(annotator, table.counts())
    with SortedRows(("word",), ((word,) for word in _counted(found, table)), "word") as words:
        often = f"word, count(*) from sorted group by word order by 2 desc, 1 limit {MOST_UNKNOWN}"
        found.unknown = dict(words.select(often))
        found.unknown_words = next(words.select("count(distinct word) from sorted"))[0]
    return found


def _counted(found: AnnotatorCounts, table: Table[Tags]) -> Iterator[str]:
    """The unknown words of an annotator's rows; all else of them is counted meanwhile."""
    steps = {
        "kept": max(1, found.outcomes["kept"] // SAMPLE),
        "failed": max(1, sum(n for name, n in found.outcomes.items() if name.startswith("failed")) // FAILED),
    }
    seen: Counter[str] = Counter()
    for row in table:
        found.tags.update((tag.group, tag.name) for tag in row.tags)
        found.long += row.tokens > MOST_TOKENS
        if row.answer:
            read = parse_tags(row.answer, closed=True, most=1, prose=found.annotator in PROSE)
            found.dropped += read.dropped
            yield from read.unknown
        sample = {"kept": found.kept, "failed": found.failed}.get(row.status)
        if sample is not None:
            if seen[row.status] % steps[row.status] == 0 and len(sample) < SAMPLE:
                sample.append(row)
            seen[row.status] += 1


def write_report(photoset: PhotoSet) -> tuple[Path, dict[str, AnnotatorCounts]]:
    """Write the page over all annotators of the set; also what was counted. Raises AuthfaceError."""
    tallies = {name: count_tags(name, photoset.tags(name)) for name in photoset.annotators()}
    files = crop_files(photoset, {row.id for found in tallies.values() for row in [*found.kept, *found.failed]})
    path = photoset.root / "reports" / "tags.html"
    report.story(
        path,
        title=f"Tags of {one_line(photoset.root.resolve().name)}",
        sections=[section for found in tallies.values() for section in _sections(photoset, found, files)],
        summary=[
            (name, f"{found.outcomes['kept']:,} of {found.outcomes.total():,} crops") for name, found in tallies.items()
        ],
    )
    return path, tallies


def _sections(photoset: PhotoSet, found: AnnotatorCounts, files: dict[str, str]) -> Iterator[report.Section]:
    who = found.annotator
    outcomes = [report.FunnelRow(name.replace("_", " "), count) for name, count in found.outcomes.most_common()]
    notes = [f"Prompts of more than {MOST_TOKENS} tokens, which are cut: {found.long:,}."] if found.long else []
    yield report.Section(f"{who}: outcomes", " ".join(notes), funnel=report.Funnel(outcomes))
    for group in (*VOCABULARY, OTHER):
        rows = [report.FunnelRow(name, n) for (of, name), n in found.tags.most_common() if of == group]
        if rows:
            whole = max(found.outcomes["kept"], 1)
            yield report.Section(f"{who}: {group}", "", funnel=report.Funnel(rows[:MOST_UNKNOWN], total=whole))
    if found.unknown or found.dropped:
        text = (
            f"{found.unknown_words:,} words that are not in the vocabulary, the most frequent first. "
            f"{found.dropped:,} more pieces are no tags: sentences, what is not there, numbers, markup."
        )
        listed = [(name, f"{n:,}") for name, n in found.unknown.items()]
        yield report.Section(f"{who}: unknown words", text, table=report.ReportTable(("word", "crops"), listed))
    if found.failed:
        cells = [_cell(photoset, row, files) for row in found.failed]
        yield report.Section(f"{who}: failed", "A sample, with what the annotator said.", figures=cells)
    if found.kept:
        cells = [_cell(photoset, row, files) for row in found.kept]
        yield report.Section(f"{who}: sample", "An even sample.", figures=cells)


def _cell(photoset: PhotoSet, row: Tags, files: dict[str, str]) -> report.Cell:
    label = prompt(row.tags) or ": ".join(text for text in (row.reason, row.detail, row.answer) if text)
    return crop_cell(photoset, row.id, files.get(row.id, ""), THUMBNAIL, label)


def crop_cell(photoset: PhotoSet, crop_id: str, file: str, side: int, label: str = "") -> report.Cell:
    """A crop on a page in `reports/`, at most `side` pixels, linked to its file; no picture where it cannot be read."""
    try:
        image = images.preview(photoset.root / file, side) if file else None
    except ImageError:
        image = None
    name = f"{crop_id[:10]}{crop_id[64:]}"
    return report.Cell(image, name, one_line(label, 600), link=f"../{file}" if file else "")


def crop_files(photoset: PhotoSet, ids: set[str]) -> dict[str, str]:
    """Files of the crops with some ids, below the set's folder."""
    crops = photoset.crops
    rows = (row for part in crops.parts() for row in crops.columns(part, ["id", "file"]))
    return {crop_id: file for crop_id, file in rows if crop_id in ids}
