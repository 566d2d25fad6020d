"""What the core and each extra take on the disk: the packages of an environment that holds them all, by their files.

    python benchmarks/sizes.py [EXTRA]

Without a name a line for the core and one for each extra: megabytes beyond the core, and the largest packages. With
one, or with `core`, every package of it.
"""

import re
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from authface.extras import EXTRAS


@cache
def megabytes(name: str) -> float:
    """Of all files of an installed package, 1e6 bytes each; with the compiled modules that are there."""
    files = metadata.files(name) or []
    paths = [Path(str(file.locate())) for file in files]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def closure(name: str, extra: str = "") -> set[str]:
    """Names of all installed packages that `name` asks for, itself left out."""
    found: set[str] = set()
    waiting = [(name, extra)]
    seen = set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        try:
            texts = metadata.requires(one[0]) or []
        except metadata.PackageNotFoundError:
            continue
        for asked in map(Requirement, texts):
            if asked.marker is None or asked.marker.evaluate({"extra": one[1]}):
                package = re.sub(r"[-_.]+", "-", asked.name).lower()
                found.add(package)
                waiting += [(package, inner) for inner in ("", *sorted(asked.extras))]
    there = {dist.name.lower().replace("_", "-") for dist in metadata.distributions() if dist.name}
    return (found & there) - {"authface"}


def main(wanted: str) -> None:
    """Print the table, or one line a package."""
    core = closure("authface")
    parts = {"core": core} | {name: closure("authface", name) - core for name in EXTRAS}
    if wanted:
        for name in sorted(parts[wanted], key=lambda name: -megabytes(name)):
            print(f"{megabytes(name):8.1f} MB  {name} {metadata.version(name)}")
    for name, packages in parts.items() if not wanted else [(wanted, parts[wanted])]:
        largest = sorted(packages, key=lambda package: -megabytes(package))[:6]
        told = ", ".join(f"{package} {megabytes(package):,.0f}" for package in largest)
        print(f"{sum(map(megabytes, packages)):8,.0f} MB  {name:<10} {told}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
