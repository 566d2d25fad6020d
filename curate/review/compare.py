"""`curate review --compare`: how well reviewers agree, and a page of the crops on which they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from authface.errors import ImageError, UsageError, one_line
from authface.imaging import decode as images
from authface.metrics.stats import cohen_kappa
from authface.records import Crop
from authface.report import pages as report
from authface.review.reviews import VERDICTS, Reviewed, Verdict, as_verdict
from authface.store.photoset import PhotoSet

SAMPLE = 300
"""Pictures of one kind of disagreement on the page, of about 10 KB each."""
THUMBNAIL = 224


@dataclass(frozen=True)
class ReviewerAgreement:
    """The verdicts of two reviewers on the crops that both judged."""

    first: str
    second: str
    confusion: Counter[tuple[Verdict, Verdict]]
    """Crops by the verdict of the first and of the second."""

    @property
    def both(self) -> int:
        """Number of crops that both judged."""
        return self.confusion.total()

    @property
    def agreed(self) -> int:
        """Number of crops on which both gave the same verdict."""
        return sum(self.confusion[verdict, verdict] for verdict in VERDICTS)

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa, -1..1; None if chance alone explains all agreement."""
        kappa = cohen_kappa([[self.confusion[one, other] for other in VERDICTS] for one in VERDICTS])
        return kappa.value if kappa else None


def agreements(people: Reviewed) -> list[ReviewerAgreement]:
    """The agreement of every two reviewers, by name. Raises UsageError if fewer than two judged anything."""
    if len(people.decisions) < 2:
        have = ", ".join(people.decisions) or "nobody"
        raise UsageError(
            f"--compare needs two reviewers, here is {have}: run authface curate review SET --reviewer NAME"
        )
    return [
        ReviewerAgreement(
            first,
            second,
            Counter(
                (as_verdict(people.decisions[first][id].verdict), as_verdict(people.decisions[second][id].verdict))
                for id in people.decisions[first].keys() & people.decisions[second].keys()
            ),
        )
        for first, second in combinations(sorted(people.decisions), 2)
    ]


def as_text(found: Sequence[ReviewerAgreement], people: Reviewed) -> str:
    """For a person: each pair with its confusion matrix, and the final verdicts."""
    blocks = []
    for pair in found:
        lines = [f"{pair.first} and {pair.second}: {_summary(pair)}"]
        if pair.both:
            lines.append(" " * 14 + "".join(f"{f'{pair.second}: {v}':>{_width(pair)}}" for v in VERDICTS))
            lines += [
                f"  {f'{pair.first}: {one}':<{_width(pair)}}"
                + "".join(f"{pair.confusion[one, other]:>{_width(pair)},}" for other in VERDICTS)
                for one in VERDICTS
            ]
        blocks.append("\n".join(lines))
    total = ", ".join(f"{count:,} {verdict}" for verdict, count in final_counts(people).items())
    return "\n\n".join([*blocks, f"under curate.review.policy = {people.policy}: {total}"])


def _width(pair: ReviewerAgreement) -> int:
    return max(len(pair.first), len(pair.second)) + len(": retouch") + 3


def _summary(pair: ReviewerAgreement) -> str:
    if not pair.both:
        return "no crop was judged by both"
    kappa = "n/a" if pair.kappa is None else f"{pair.kappa:.2f}"
    return f"kappa {kappa}, {report.share(pair.agreed, pair.both)} agreement on {pair.both:,} crops"


def as_json(found: Sequence[ReviewerAgreement], people: Reviewed) -> dict[str, object]:
    """For ``--json``."""
    return {
        "pairs": [
            {
                "reviewers": [pair.first, pair.second],
                "both": pair.both,
                "agreed": pair.agreed,
                "kappa": None if pair.kappa is None else round(pair.kappa, 4),
                "confusion": {f"{one}/{other}": count for (one, other), count in sorted(pair.confusion.items())},
            }
            for pair in found
        ],
        "policy": people.policy,
        "final": final_counts(people),
    }


def final_counts(people: Reviewed) -> dict[str, int]:
    """Number of judged crops by final verdict under the policy."""
    ids = set().union(*people.decisions.values())
    counts = Counter(people.verdict(crop_id) for crop_id in ids)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def write_page(photoset: PhotoSet, people: Reviewed, found: Sequence[ReviewerAgreement]) -> Path:
    """Write ``reports/review.html``: crops with differing verdicts, grouped by who gave which; returns its path."""
    path = photoset.root / "reports" / "review.html"
    groups: dict[str, list[Crop]] = {}
    for crop in photoset.crops:
        said = people.decisions_on(crop.id)
        if crop.status == "kept" and len({decision.verdict for decision in said.values()}) > 1:
            name = ", ".join(f"{who}: {decision.verdict}" for who, decision in sorted(said.items()))
            groups.setdefault(name, []).append(crop)
    report.contact_sheet(
        path,
        title=f"Where reviewers of {one_line(photoset.root.name or 'the set')} disagree",
        summary=[(f"{pair.first} and {pair.second}", _summary(pair)) for pair in found],
        groups=_shelves(photoset, people, groups),
    )
    return path


def _shelves(photoset: PhotoSet, people: Reviewed, groups: dict[str, list[Crop]]) -> Iterator[report.SheetGroup]:
    for name, crops in sorted(groups.items(), key=lambda entry: -len(entry[1])):
        final_verdict = people.verdict(crops[0].id)
        cells = [_cell(photoset, people, crop) for crop in crops[:SAMPLE]]
        yield report.SheetGroup(name, f"together, under {people.policy}: {final_verdict}.", len(crops), cells)


def _cell(photoset: PhotoSet, people: Reviewed, crop: Crop) -> report.Cell:
    file = people.file(crop)
    try:
        image = images.preview(photoset.root / file, THUMBNAIL)
    except ImageError:
        image = None
    reasons = [f"{who}: {said.reason}" for who, said in sorted(people.decisions_on(crop.id).items()) if said.reason]
    return report.Cell(image, f"{crop.id[:10]}{crop.id[64:]}", one_line(", ".join(reasons)), link=f"../{file}")
