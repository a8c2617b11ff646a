"""Start-up: `import calibwrap` and `calibwrap --help` beside `import numpy`, whole processes, interleaved.

python benchmarks/startup.py [--repeats 15] [--json FILE]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "import numpy": [sys.executable, "-c", "import numpy"],
    "import calibwrap": [sys.executable, "-c", "import calibwrap"],
    "calibwrap --help": [str(Path(sys.executable).with_name("calibwrap")), "--help"],
}
BARS = {"import calibwrap": 2.0, "calibwrap --help": 4.0}


def seconds(command: list[str]) -> float:
    """Return the wall time of one whole process."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    for command in COMMANDS.values():
        seconds(command)  # fills the file cache
    runs = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(arguments.repeats)]
    medians = {name: statistics.median(run[name] for run in runs) for name in COMMANDS}
    results = {}
    for name, bar in BARS.items():
        ratios = [run[name] / run["import numpy"] for run in runs]
        ratio = medians[name] / medians["import numpy"]
        results[name] = {"seconds": medians[name], "ratio": ratio, "low": min(ratios), "high": max(ratios), "bar": bar}
        print(
            f"{name}: {medians[name]:.3f} s, {ratio:.2f} x import numpy ({medians['import numpy']:.3f} s); "
            f"single runs {min(ratios):.2f} to {max(ratios):.2f}; bar {bar:.0f} x"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
