"""The probability that a model states each confidence level next, read from a few rows of logits: differentiable.

All eleven levels are read in one forward pass. Their tokens form a chain: every level is the beginning of "10", but for
its last token. Most tokenizers write " 10" as a space, "1" and "0", so three positions hold everything; where " 10" is
one token, one position does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from calibwrap.errors import CapabilityError


@dataclass(frozen=True)
class LevelTokens:
    """Where the levels are read.

    >>> LevelTokens.of([[5, level] for level in range(10)] + [[5, 1, 0]]).chain
    (5, 1, 0)
    """

    chain: tuple[int, ...]
    """(C,) tokens of the longest level; what is fed to the model is all but the last."""
    ends: tuple[tuple[int, int], ...]
    """(11,) for each level the position of its last token in the chain, and that token."""
    longer: tuple[int, ...]
    """(11,) for each level the token that would make it another, longer level; -1 where there is none."""

    @classmethod
    def of(cls, tokens: Sequence[Sequence[int]]) -> "LevelTokens":
        """Return where levels of these tokens are read, level 0 first.

        Raises:
            CapabilityError: they are no chain, or two levels have the same tokens.

        >>> LevelTokens.of([[7], [8], [9]]).ends
        ((0, 7), (0, 8), (0, 9))
        """
        levels = [tuple(own) for own in tokens]
        chain = max(levels, key=len)
        if len(set(levels)) < len(levels) or any(not own or own[:-1] != chain[: len(own) - 1] for own in levels):
            raise CapabilityError(
                f"The confidence levels must be tokens whose beginnings are those of the last one, as digits are. Got "
                f"{[list(own) for own in levels]}: use algorithm 'rloo', which draws them."
            )
        ends = tuple((len(own) - 1, own[-1]) for own in levels)
        longer = tuple(chain[len(own)] if len(own) < len(chain) and own == chain[: len(own)] else -1 for own in levels)
        return cls(chain, ends, longer)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return (B, 11) probabilities that each level is stated, for logits (B, C, V) that predict the chain's tokens.

        A level that another one begins with, as "1" is of "10", counts without it. What is left of 1 is malformed.

        >>> tokens = LevelTokens.of([[0], [1], [1, 0]])  # "0", "1" and "10"
        >>> tokens.probabilities(torch.tensor([[[0.5, 0.25, 0.25], [0.2, 0.4, 0.4]]]).log()).numpy().round(3)
        array([[0.5 , 0.2 , 0.05]], dtype=float32)
        """
        logprobs = torch.log_softmax(logits.float(), dim=-1)  # (B, C, V)
        before = [torch.zeros_like(logprobs[:, 0, 0])]
        for position, token in enumerate(self.chain[:-1]):
            before.append(before[-1] + logprobs[:, position, token])  # (B,)
        stated = []
        for (position, token), longer in zip(self.ends, self.longer, strict=True):
            own = (before[position] + logprobs[:, position, token]).exp()
            if longer >= 0:
                own = own * -torch.expm1(logprobs[:, position + 1, longer])
            stated.append(own)
        return torch.stack(stated, dim=-1)  # (B, 11)


def expected_reward(probabilities: torch.Tensor, table: torch.Tensor, correct: torch.Tensor) -> torch.Tensor:
    """Return (B,) expected rewards of levels with probabilities (B, L); the rest of the mass is malformed.

    Args:
        probabilities: π(k | x, a) of each level.
        table: (L + 1, 2) rewards R(k, j); the last row is malformed, column 1 a right answer.
        correct: (B,) whether the answers are right.

    The gradient is that of Σ_k π(k | x, a) R(k, j): what drawing levels estimates, without its variance.

    >>> table = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [-3.0, -3.0]])
    >>> expected_reward(torch.tensor([[0.25, 0.5]]), table, torch.tensor([True])).tolist()  # -0.25 + 0.5 - 0.75
    [-0.5]
    """
    rewards = table.to(probabilities)[:, correct.long()].T  # (B, L + 1)
    malformed = 1.0 - probabilities.sum(dim=-1)
    return (probabilities * rewards[:, :-1]).sum(dim=-1) + malformed * rewards[:, -1]


def level_entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Return (B,) entropies of levels with probabilities (B, L), in nats; what is left of 1 is one outcome more.

    >>> round(float(level_entropy(torch.tensor([[0.25, 0.25]]))), 4)  # 0.5 is malformed
    1.0397
    """
    rest = (1.0 - probabilities.sum(dim=-1, keepdim=True)).clamp(min=0.0)
    outcomes = torch.cat([probabilities, rest], dim=-1)
    return -torch.xlogy(outcomes, outcomes.clamp(min=1e-30)).sum(dim=-1)
