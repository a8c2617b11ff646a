"""Equal answers among several completions, and how sure their numbers make us. Pure functions of texts and weights."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from calibwrap.errors import InputError
from calibwrap.freetext.normalise import Normaliser, trivia_qa
from calibwrap.scores import Floats


@dataclass(frozen=True)
class Cluster:
    """Texts that say the same."""

    key: str
    """What the normaliser makes of all of them."""
    members: tuple[int, ...]
    """Places of the texts, in order."""


def clusters_of(texts: Sequence[str], normalise: Normaliser = trivia_qa) -> tuple[Cluster, ...]:
    """Return the clusters of equal answers in the order of their keys; a text that says nothing is in none.

    >>> clusters_of(["Rome", "the Paris", "...", "paris."])
    (Cluster(key='paris', members=(1, 3)), Cluster(key='rome', members=(0,)))
    """
    members: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        members.setdefault(normalise(text), []).append(index)
    members.pop("", None)
    return tuple(Cluster(key, tuple(members[key])) for key in sorted(members))


def spelling(texts: Sequence[str]) -> str:
    """Return the text that stands for equal answers: the commonest, without space around it; of those the least.

    >>> spelling(["PARIS", " Paris", "Paris"])
    'Paris'
    """
    counts = Counter(text.strip() for text in texts)
    return min(counts, key=lambda text: (-counts[text], text))


def counts(clusters: Sequence[Cluster]) -> Floats:
    """Return (C,) how many texts each cluster has.

    >>> counts(clusters_of(["Rome", "Paris", "paris"])).tolist()
    [2.0, 1.0]
    """
    return np.array([float(len(cluster.members)) for cluster in clusters])


def summed_probabilities(clusters: Sequence[Cluster], texts: Sequence[str], logprobs: ArrayLike) -> Floats:
    """Return (C,) the summed probability of the different texts of each cluster.

    Args:
        clusters: the clusters.
        texts: (n,) the texts; one that was drawn several times counts once, since its probability is known.
        logprobs: (n,) log-probability of each text as a whole.

    The more texts were drawn, the closer the sums come to the probabilities of the answers.

    >>> texts = ["Rome", "Paris", "Paris", "the Paris"]
    >>> summed_probabilities(clusters_of(texts), texts, np.log([0.25, 0.5, 0.5, 0.125])).tolist()
    [0.625, 0.25]
    """
    values = np.asarray(logprobs, dtype=np.float64)
    different = ({texts[index]: float(values[index]) for index in cluster.members} for cluster in clusters)
    return np.array([np.exp(list(known.values())).sum() for known in different])


def semantic_entropy(weights: ArrayLike) -> float:
    """Return the entropy in nats of answers with these weights, which need not sum to 1.

    References:
        Kuhn, Gal, Farquhar: Semantic uncertainty (2023), with equality by a normaliser in place of entailment.

    >>> round(semantic_entropy([6.0, 2.0]), 4), semantic_entropy([8.0])  # 3/4 log 4/3 + 1/4 log 4
    (0.5623, 0.0)
    """
    values = np.asarray(weights, dtype=np.float64)
    if values.ndim != 1 or not values.size or not (values >= 0.0).all() or not 0.0 < values.sum() < np.inf:
        raise InputError(f"'weights' must be (C,) finite numbers of at least 0, not all 0. Got {values.tolist()}.")
    shares = values[values > 0.0] / values.sum()
    return max(0.0, float(-(shares * np.log(shares)).sum()))


def entropy_confidence(entropy: float) -> float:
    """Return exp(-entropy), one over the number of equally likely answers that would be as uncertain.

    It falls strictly with the entropy, so it ranks as the entropy does, and it compares between numbers of draws: 1
    where all agree, 1/m for m equal clusters.

    >>> round(entropy_confidence(semantic_entropy([2.0, 2.0, 2.0, 2.0])), 6)
    0.25
    """
    return float(np.exp(-entropy))
