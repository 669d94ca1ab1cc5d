"""The promised figures on MinIO and folder stores: `scripts/bench store [NAME...]`, `--list` for the names.

Each figure is taken with the real program. Rates stand beside what the `minio` client alone reaches in the same run.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import delayed, figures, uplinks
from tests.benchmarks.bench import Bench, Row
from tests.support.minio import RunningMinio

FIGURES = {function.__name__: function for function in (*figures.ALL, *delayed.ALL, *uplinks.ALL)}


def main() -> int:
    parser = argparse.ArgumentParser(description="measure the promised figures")
    parser.add_argument("names", nargs="*", metavar="NAME", help="figures to measure; all without")
    parser.add_argument("--list", action="store_true", help="list the names")
    chosen = parser.parse_args()
    if chosen.list:
        for name, function in FIGURES.items():
            print(f"{name:20} {(function.__doc__ or '').splitlines()[0]}")
        return 0
    unknown = [name for name in chosen.names if name not in FIGURES]
    if unknown:
        parser.error(f"no figure is called {unknown[0]}; --list shows the names")
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    minio = RunningMinio(folder)
    minio.start()
    rows: list[Row] = []
    try:
        for name in chosen.names or FIGURES:
            with Bench(folder, minio) as bench:
                for row in FIGURES[name](bench):
                    rows.append(row)
                    print(f"{row.verdict:6} {row.name}: {row.value} (goal: {row.goal})", flush=True)
    finally:
        minio.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{sum(row.met for row in rows)} met, {sum(not row.met for row in rows)} missed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
