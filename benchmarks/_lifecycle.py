"""What the two published studies share: how a study's rows are shown, and kept for machines."""

import json
from pathlib import Path

from calibwrap.lifecycle import Study


def show(study: Study, kept: Path | None) -> None:
    """Print a line for each probe of each model, then what failed; write all of it to `kept` if that is a path."""
    rows = study.rows()
    for row in rows:
        change = row["ece_change"]
        told = f"  {change:+.3f} ({row['ece_change_low']:+.3f} to {row['ece_change_high']:+.3f})" if change else ""
        print(
            f"{row['probe']:<14}{row['model']:<20} accuracy {row['accuracy']:.3f}  gap {row['gap']:+.3f}  "
            f"ECE {row['ece']:.3f} ({row['ece_low']:.3f} to {row['ece_high']:.3f}){told}"
        )
    for name, why in study.failures.items():
        print(f"Failed: {name}: {why}")
    if kept is not None:
        kept.write_text(json.dumps(study.told(rows), indent=1), encoding="utf-8")
