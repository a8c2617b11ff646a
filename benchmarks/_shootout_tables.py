"""The shoot-out's tables, in Markdown: one a set, one of all, and the methods without labels beside the labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from _shootout_judge import MEASURES, Key, Results, ends, measured
from _shootout_scores import Stored
from label_free import REFERENCE
from scipy.stats import rankdata

LABELLED, BARRED, BAR, CALIBRATED = "temperature", "daca", 0.015, 0.1
"""The oracle, the method with a bar, the bar on its ECE, and a reference's ECE below which it counts as calibrated."""


def table(key: Key, results: Results) -> list[str]:
    """Return the Markdown table of one model on one set; a failure is said in its row."""
    lines = [
        f"| {', '.join(key)} | uses | choice stays | {' | '.join(MEASURES)} | fit, ms |",
        "|---" * (4 + len(MEASURES)) + "|",
    ]
    for name, result in results.items():
        if result.failed:
            lines.append(f"| {name} | {result.uses} | | {plain(result.failed)}" + " |" * (1 + len(MEASURES)))
            continue
        cells = [f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in result.figures.values()]
        lines.append(
            f"| {name} | {result.uses} | {'yes' if result.keeps_choice else 'no'} | {' | '.join(cells)} | "
            f"{1000.0 * result.fit_seconds:.1f} |"
        )
    return lines


def plain(sentence: str) -> str:
    """Return an error's sentence in one line that no table's column ends in."""
    return " ".join(sentence.split()).replace("|", "/")


def mean_ranks(found: Mapping[Key, Results], measure: str) -> dict[str, float]:
    """Return each method's mean rank over models and sets, 1 the least; who failed shares the last places."""
    names = list(next(iter(found.values())))
    ranks = [rankdata(np.nan_to_num([of[name][measure] for name in names], nan=np.inf)) for of in found.values()]
    return dict(zip(names, np.mean(ranks, axis=0).tolist(), strict=True))


def summary(found: Mapping[Key, Results]) -> dict[str, dict[str, Any]]:
    """Return the summary's rows, least mean rank by ECE first; means are over the sets on which a method worked."""
    ranks = {measure: mean_ranks(found, measure) for measure in ("ece", "nll")}
    rows = {}
    for name in sorted(ranks["ece"], key=ranks["ece"].__getitem__):
        worked = [of[name] for of in found.values() if not of[name].failed]
        rows[name] = {
            "uses": next(iter(found.values()))[name].uses,
            "keeps_choice": bool(worked) and all(one.keeps_choice for one in worked),
            "worked": len(worked),
            "rank_ece": ranks["ece"][name],
            "rank_nll": ranks["nll"][name],
            **{measure: float(np.mean([one[measure] for one in worked] or [np.nan])) for measure in MEASURES},
            "fit_seconds": float(np.median([one.fit_seconds for one in worked] or [np.nan])),
        }
    return rows


def summary_table(rows: Mapping[str, Mapping[str, Any]], total: int) -> list[str]:
    """Return the summary in Markdown."""
    heads = ["all", "uses", "choice stays", f"worked, of {total}", "mean rank, ece", "mean rank, nll", *MEASURES]
    lines = [f"| {' | '.join([*heads, 'fit, ms'])} |", "|---" * (len(heads) + 1) + "|"]
    for name, row in rows.items():
        stays = "yes" if row["keeps_choice"] else "no" if row["worked"] else ""
        means = " | ".join(f"{row[measure]:.3f}" if row["worked"] else "" for measure in MEASURES)
        took = f"{1000.0 * row['fit_seconds']:.1f}" if row["worked"] else ""
        lines.append(
            f"| {name} | {row['uses']} | {stays} | {row['worked']} | {row['rank_ece']:.1f} | {row['rank_nll']:.1f} | "
            f"{means} | {took} |"
        )
    return lines


def bar_rows(found: Mapping[Key, Results], references: Mapping[str, Stored]) -> list[dict[str, Any]]:
    """Return for each model and set how far DACA lies from labels, and how well the reference is calibrated there."""
    rows = []
    for key, results in found.items():
        own, daca, warm = references[key[2]], results[BARRED], results[LABELLED]
        ready = not (daca.failed or warm.failed)
        rows.append(
            {
                "key": list(key),
                "reference_accuracy": measured("accuracy", own.scores, own.answers),
                "reference_confidence": float(own.scores.confidence.mean()),
                "reference_ece": measured("ece", own.scores, own.answers),
                "counts": key[0] != REFERENCE and ready,
                "daca": daca["ece"],
                "labelled": warm["ece"],
                "gap": daca["ece"] - warm["ece"],
                "interval": ends(daca.ece_draws - warm.ece_draws) if ready else (np.nan, np.nan),
                "temperatures": (daca.temperature, warm.temperature),
            }
        )
    return rows


def bar_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return DACA beside labels in Markdown, and whether the bar is met."""
    lines = [
        "| DACA's bar | reference: accuracy | confidence | ECE | calibrated | DACA, ECE | labels, ECE | "
        "DACA above labels, points | T of DACA | T of labels |",
        "|---" * 10 + "|",
    ]
    for row in rows:
        gap, (low, high) = 100.0 * row["gap"], (100.0 * end for end in row["interval"])
        told = "yes" if row["reference_ece"] < CALIBRATED else "no"
        lines.append(
            f"| {', '.join(row['key'])} | {row['reference_accuracy']:.3f} | {row['reference_confidence']:.3f} | "
            f"{row['reference_ece']:.3f} | {told}{'' if row['counts'] else ', not counted'} | {row['daca']:.3f} | "
            f"{row['labelled']:.3f} | {gap:+.1f} ({low:+.1f} to {high:+.1f}) | "
            f"{row['temperatures'][0]:.2f} | {row['temperatures'][1]:.2f} |"
        )
    inside = [row["gap"] for row in rows if row["counts"] and row["reference_ece"] < CALIBRATED]
    if not inside:
        return [*lines, "", f"No set has a reference with an ECE below {CALIBRATED}: the bar is not tried."]
    said = "met" if np.mean(inside) <= BAR else "missed"
    mean, bar = 100.0 * float(np.mean(inside)), 100.0 * BAR
    return [
        *lines,
        "",
        f"Where the reference is calibrated ({len(inside)} cells): {mean:+.1f} points, bar {bar:.1f}: {said}.",
    ]


def above_labels(found: Mapping[Key, Results], bars: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how far each method without labels lies above a temperature with labels, by how good the reference is."""
    good = {tuple(row["key"]) for row in bars if row["counts"] and row["reference_ece"] < CALIBRATED}
    sides = {"calibrated reference": good, "others": set(found) - good}
    lines = [
        "| without labels, above a temperature with labels | "
        + " | ".join(f"{side}: ECE, points | worst | nll" for side in sides) + " |",
        "|---" * (1 + 3 * len(sides)) + "|",
    ]  # fmt: skip
    for name in (name for name, one in next(iter(found.values())).items() if one.uses != "labels"):
        cells = []
        for keys in sides.values():
            both = [(found[key][name], found[key][LABELLED]) for key in found if key in keys]
            gaps = {m: [a[m] - b[m] for a, b in both if not a.failed and not b.failed] for m in ("ece", "nll")}
            ece = [100.0 * gap for gap in gaps["ece"]]
            cells += [f"{np.mean(ece):+.1f}", f"{max(ece):+.1f}", f"{np.mean(gaps['nll']):+.3f}"] if ece else [""] * 3
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
