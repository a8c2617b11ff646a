"""Permuted readout: ask each question once for every cyclic order of its options, and average by option.

Under a letter a model judges the option and the letter, and it has a liking for some letters. In the K cyclic orders of
K options each option stands under each letter once, so that in the average all options get the same share of the
liking. The orders of all questions of a batch go to the backend in one call, the orders of a question side by side: a
backend that keeps prefixes reads the question once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from calibwrap.base import Adapter
from calibwrap.questions import Question
from calibwrap.readouts._around import Around
from calibwrap.readouts.label import Label
from calibwrap.scores import Floats, OptionScores


@dataclass(frozen=True)
class Permuted(Around):
    """K prompts a question of K options; the probability of an option is its mean over all cyclic orders.

    The first choice may differ from the one in the order that was given, and it does not depend on where in the cycle
    the options start: whoever turns the options of a question gets the same answer. All K! orders would be even in
    the neighbours too; the K cyclic ones are the fewest that are even in the letters. Out of lists that were cut off,
    bounds are averaged, each option's lower end counts as shown, and they stay honest under a temperature.

    References:
        Zheng, Zhou, Meng, Zhou, Huang: Large language models are not robust multiple choice selectors (2024), where the
        average over cyclic permutations is a baseline; "CAPE" among the baselines of Luo et al. (2025), see `fit_daca`.

    >>> Permuted().label
    'permuted:label:letter'
    """

    name: ClassVar[str] = "permuted"
    inner: Label = field(default_factory=Label)
    """How each order is asked."""

    @property
    def label(self) -> str:
        """Name and the readout inside, such as "permuted:label:letter"."""
        return f"permuted:{self.inner.label}"

    def ask(self, adapter: Adapter, questions: Sequence[Question]) -> OptionScores:
        """Return the averaged scores of all options; `label_mass` is the mean over the orders.

        Raises:
            AmbiguousOptions: a label is not one token after its prompt, or two labels share a form or a token.
            InputError: a question has more options than there are labels.
        """
        orders = [cyclic_orders(len(question.options)) for question in questions]
        asked = [turned(question, order) for question, of in zip(questions, orders, strict=True) for order in of]
        return averaged(self.inner.ask(adapter, asked), [len(of) for of in orders], self.label)


def cyclic_orders(n_options: int) -> list[list[int]]:
    """Return the orders in which each option stands in each place once.

    >>> cyclic_orders(3)
    [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    """
    return [[(start + place) % n_options for place in range(n_options)] for start in range(n_options)]


def turned(question: Question, order: Sequence[int]) -> Question:
    """Return the question with its options in another order, its answer unknown.

    >>> turned(Question("Red?", ["Mars", "Venus"], answer=0), [1, 0]).options
    ('Venus', 'Mars')
    """
    return replace(question, options=[question.options[place] for place in order], answer=None)


def averaged(asked: OptionScores, sizes: Sequence[int], readout: str) -> OptionScores:
    """Return the means over orders, for questions of `sizes` options whose cyclic orders follow each other in `asked`.

    With averaged bounds l and u, the averaged probability of option i is l_i and at most u_i - l_i of the 1 - sum(l)
    that is left open: the form of a list that was cut off, whose bounds a temperature maps exactly. A row that is exact
    in every order stays exact.

    >>> both = OptionScores(np.log([[0.8, 0.2], [0.6, 0.4]]), "label")  # the first option has 0.8, then 0.4
    >>> averaged(both, [2], "permuted").probabilities.round(4).tolist()
    [[0.6, 0.4]]
    """
    width = max(sizes)
    value, lower, upper = (_means(getattr(asked, name), sizes, width) for name in ("probabilities", "lower", "upper"))
    starts = np.cumsum([0, *sizes[:-1]])
    cut = np.maximum.reduceat(asked.is_cut, starts)
    mask = np.arange(width) < np.array(sizes)[:, None]
    mass = np.add.reduceat(asked.label_mass, starts) / np.array(sizes)
    shown = np.where(cut[:, None], lower, value)
    hidden = np.where(cut[:, None], upper - lower, 0.0)
    left = np.where(cut, np.maximum(1.0 - lower.sum(axis=1), 0.0), 0.0)
    scores = OptionScores.from_lists(shown, np.maximum(hidden, 0.0), left, np.ones(len(sizes)), readout, mask)
    return replace(scores, label_mass=mass)


def _means(values: Floats, sizes: Sequence[int], width: int) -> Floats:
    """Return (N, width) the mean of each option's `values` over the orders, wherever it stood in them."""
    means = np.zeros((len(sizes), width))
    first = 0
    for row, k in enumerate(sizes):
        orders = cyclic_orders(k)
        np.add.at(means[row], np.array(orders), values[first : first + k, :k] / k)
        first += k
    return means
