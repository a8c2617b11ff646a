"""The shoot-out's tables, in Markdown: one a set, one of all, and the methods without labels beside the labels."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from _shootout_judge import MEASURES, Key, Result, Results, ends, measured
from _shootout_methods import LABELLED
from _shootout_scores import REFERENCE, Stored
from scipy.stats import rankdata

BARRED, BAR, CALIBRATED = "daca", 1.5, 0.1
"""The method with a bar, the bar in points of ECE, and the ECE below which a reference is calibrated."""


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


def names_of(found: Mapping[Key, Results]) -> dict[str, str]:
    """Return what every method that was judged uses, by name."""
    return {name: one.uses for of in found.values() for name, one in of.items()}


def mean_ranks(found: Mapping[Key, Results], measure: str) -> dict[str, float]:
    """Return each method's mean rank over the tables it is in, 1 the least; who failed shares the last places."""
    ranks: dict[str, list[float]] = {name: [] for name in names_of(found)}
    for of in found.values():
        places = rankdata(np.nan_to_num([one[measure] for one in of.values()], nan=np.inf))
        for name, place in zip(of, places, strict=True):
            ranks[name].append(float(place))
    return {name: float(np.mean(of)) for name, of in ranks.items()}


Gap = tuple[float, float, float]


def pairs(found: Mapping[Key, Results], name: str, keys: Collection[Key]) -> list[tuple[Result, Result]]:
    """Return a method's results beside those of labels where both worked."""
    both = [(found[key][name], found[key][LABELLED]) for key in keys if name in found[key]]
    return [(one, warm) for one, warm in both if not (one.failed or warm.failed)]


def above(found: Mapping[Key, Results], name: str, keys: Collection[Key]) -> Gap | None:
    """Return how far a method's ECE lies above that of labels, in points, mean over `keys`, and both ends of 95 %."""
    both = pairs(found, name, keys)
    if not both:
        return None
    draws = np.mean([one.ece_draws - warm.ece_draws for one, warm in both], axis=0)
    low, high = ends(draws)
    return tuple(100.0 * value for value in (float(np.mean([a["ece"] - b["ece"] for a, b in both])), low, high))


def points(gap: Gap | None) -> str:
    """Return a gap as a table writes it."""
    return "" if gap is None else f"{gap[0]:+.1f} ({gap[1]:+.1f} to {gap[2]:+.1f})"


def summary(found: Mapping[Key, Results]) -> dict[str, dict[str, Any]]:
    """Return the summary's rows, least mean rank by ECE first; means are over the sets on which a method worked."""
    ranks = {measure: mean_ranks(found, measure) for measure in ("ece", "nll")}
    rows = {}
    for name in sorted(ranks["ece"], key=ranks["ece"].__getitem__):
        tried = [of[name] for of in found.values() if name in of]
        worked = [one for one in tried if not one.failed]
        rows[name] = {
            "uses": tried[0].uses,
            "keeps_choice": bool(worked) and all(one.keeps_choice for one in worked),
            "worked": len(worked),
            "tried": len(tried),
            "rank_ece": ranks["ece"][name],
            "rank_nll": ranks["nll"][name],
            **{measure: float(np.mean([one[measure] for one in worked] or [np.nan])) for measure in MEASURES},
            "above_labels": above(found, name, list(found)),
            "fit_seconds": float(np.median([one.fit_seconds for one in worked] or [np.nan])),
        }
    return rows


def summary_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the summary in Markdown."""
    heads = [title, "uses", "choice stays", "worked, of tables", "mean rank, ece", "mean rank, nll", *MEASURES]
    heads += ["ece above temperature, points", "fit, ms"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, row in rows.items():
        stays = "yes" if row["keeps_choice"] else "no" if row["worked"] else ""
        means = " | ".join(f"{row[measure]:.3f}" if row["worked"] else "" for measure in MEASURES)
        took = f"{1000.0 * row['fit_seconds']:.1f}" if row["worked"] else ""
        lines.append(
            f"| {name} | {row['uses']} | {stays} | {row['worked']} of {row['tried']} | {row['rank_ece']:.1f} | "
            f"{row['rank_nll']:.1f} | {means} | {points(row['above_labels'])} | {took} |"
        )
    return lines


def bar_rows(found: Mapping[Key, Results], references: Mapping[str, Stored]) -> list[dict[str, Any]]:
    """Return for each model and set how far DACA lies from labels, and how well the reference is calibrated there."""
    rows = []
    for key, results in found.items():
        own, daca, warm = references[key[2]], results[BARRED], results[LABELLED]
        rows.append(
            {
                "key": key,
                "reference_accuracy": measured("accuracy", own.scores, own.answers),
                "reference_confidence": float(own.scores.confidence.mean()),
                "reference_ece": measured("ece", own.scores, own.answers),
                "own_reference": key[0] == REFERENCE,
                "daca": daca["ece"],
                "labelled": warm["ece"],
                "above_labels": above(found, BARRED, [key]),
                "temperatures": (daca.temperature, warm.temperature),
            }
        )
    return rows


def counted(bars: Sequence[Mapping[str, Any]]) -> list[Key]:
    """Return the models and sets on which the bar is tried: another model is the reference, and it is calibrated."""
    return [row["key"] for row in bars if not row["own_reference"] and row["reference_ece"] < CALIBRATED]


def bar_table(found: Mapping[Key, Results], bars: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return DACA beside labels in Markdown, and whether the bar is met."""
    lines = [
        "| DACA's bar | reference: accuracy | confidence | ECE | calibrated | DACA, ECE | labels, ECE | "
        "DACA above labels, points | T of DACA | T of labels |",
        "|---" * 10 + "|",
    ]
    for row in bars:
        told = "yes" if row["reference_ece"] < CALIBRATED else "no"
        lines.append(
            f"| {', '.join(row['key'])} | {row['reference_accuracy']:.3f} | {row['reference_confidence']:.3f} | "
            f"{row['reference_ece']:.3f} | {told}{', not counted' if row['own_reference'] else ''} | "
            f"{row['daca']:.3f} | {row['labelled']:.3f} | {points(row['above_labels'])} | "
            f"{row['temperatures'][0]:.2f} | {row['temperatures'][1]:.2f} |"
        )
    return [*lines, "", verdict(above(found, BARRED, counted(bars)), len(counted(bars)), len(bars))]


def verdict(gap: Gap | None, tried: int, total: int) -> str:
    """Return whether DACA's bar is met, in one sentence."""
    if gap is None:
        return f"The bar is not tried: no model has another one as a reference with an ECE below {CALIBRATED}."
    said = "met" if gap[0] <= BAR else "missed"
    where = f"Where the reference is calibrated ({tried} of {total} tables)"
    return f"{where}, DACA is {points(gap)} points above labels; the bar is {BAR:.1f}: {said}."


def above_table(found: Mapping[Key, Results], bars: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how far each method without labels lies above a temperature with labels, by how good the reference is.

    Ordered by log loss, which no fluke of bins can lower.
    """
    good = counted(bars)
    sides = {"reference calibrated": good, "others": [key for key in found if key not in good]}
    heads = ["without labels, above temperature"]
    for side in sides:
        heads += [f"{side}: ECE, points", "worst", "log loss, nats", "worst"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    free = [name for name, uses in names_of(found).items() if uses != "labels"]
    for name in sorted(free, key=lambda name: np.mean(log_losses(found, name, found) or [np.inf])):
        cells = []
        for keys in sides.values():
            each = [gap[0] for key in keys if (gap := above(found, name, [key])) is not None]
            lost = log_losses(found, name, keys)
            cells += [points(above(found, name, keys)), f"{max(each):+.1f}" if each else ""]
            cells += [f"{np.mean(lost):+.3f}", f"{max(lost):+.3f}"] if lost else ["", ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def log_losses(found: Mapping[Key, Results], name: str, keys: Collection[Key]) -> list[float]:
    """Return how far a method's log loss lies above that of labels, in nats, one number a table."""
    return [one["nll"] - warm["nll"] for one, warm in pairs(found, name, keys)]
