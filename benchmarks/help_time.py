"""What `authface --help` costs beside importing its command line library: medians of interleaved runs.

    python benchmarks/help_time.py [ROUNDS]

The limit is 1.5 times `python -c "import typer, rich.console"`; ends with 1 above it.
"""

import statistics
import subprocess
import sys
import time

LIMIT = 1.5
COMMANDS = {
    "authface --help": [sys.executable, "-c", "import sys; sys.argv = ['authface', '--help']; "
                        "from authface.cli import main; main()"],
    "import typer, rich.console": [sys.executable, "-c", "import typer, rich.console"],
}  # fmt: skip


def main(rounds: int) -> int:
    """Print the medians and their ratio; 1 where it is above the limit."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    ours, base = (statistics.median(times[1:]) for times in seconds.values())  # the first run fills the caches
    for name, median in zip(COMMANDS, (ours, base), strict=True):
        sys.stdout.write(f"{median:6.3f} s  {name}\n")
    sys.stdout.write(f"{ours / base:6.2f}    ratio, the limit is {LIMIT}\n")
    return int(ours > LIMIT * base)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 15))
