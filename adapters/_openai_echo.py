"""Scores of continuations from a server that sends the prompt back with the log-probability of each of its tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from calibwrap.adapters._openai_drawing import Ask
from calibwrap.adapters._openai_replies import Choice, Position, read_choices
from calibwrap.adapters._openai_requests import Asked, Draw
from calibwrap.adapters._openai_scores import TokenNumbers, sorted_row, token_scores
from calibwrap.adapters._openai_transport import Reply
from calibwrap.adapters._shared import split_joint
from calibwrap.errors import InputError, LogprobsUnavailable
from calibwrap.scores import TokenScores


@dataclass(frozen=True)
class Joint:
    """A text that came back: its tokens, named so that equal names are equal tokens."""

    positions: tuple[Position, ...]
    names: tuple[int, ...]
    inside: int | None
    """How many tokens end within the prompt; None when the tokens' texts do not make up the text."""


@dataclass(frozen=True)
class Echo:
    """How prompts that come back are read."""

    top: int
    """Listed tokens a position; 0 for the scored one alone."""
    server: str
    numbers: TokenNumbers

    def scores(
        self, ask: Ask, prompts: Sequence[str], continuations: Sequence[Sequence[str]]
    ) -> list[list[TokenScores]]:
        """Return the scores of each prompt's continuations.

        Raises:
            InputError: an empty continuation.
            LogprobsUnavailable: the prompt did not come back, or without values.
        """
        for texts in continuations:
            if isinstance(texts, str) or not all(isinstance(text, str) and text for text in texts):
                raise InputError(f"Each prompt needs a list of texts, none empty. Got {texts!r}.")
        pairs = [(prompt, text) for prompt, texts in zip(prompts, continuations, strict=True) for text in texts]
        replies = ask([self._request(prompt + text) for prompt, text in pairs])
        joints = iter([self._joint(reply, *pair) for reply, pair in zip(replies, pairs, strict=True)])
        groups = [[next(joints) for _ in texts] for texts in continuations]
        starts = self._starts(ask, prompts, groups)
        return [
            [self._scored(joint.positions[start:]) for joint in group]
            for start, group in zip(starts, groups, strict=True)
        ]

    def _request(self, text: str) -> Asked:
        return text, Draw(top=max(1, self.top), echo=True)

    def _joint(self, reply: Reply, prompt: str, text: str = "") -> Joint:
        choice = self._choice(reply)
        positions = (choice.positions or ())[:-1]  # the last token was drawn
        names = choice.prompt_ids or tuple(self.numbers.number(position.drawn) for position in positions)
        if not positions or len(names) != len(positions):
            raise LogprobsUnavailable(
                f"{self.server} sent {len(positions)} values for a prompt of {len(names)} tokens: it does not score "
                "prompts as the probe has seen it do. Use the label readout."
            )
        return Joint(positions, names, tokens_inside([position.drawn.text for position in positions], prompt, text))

    def _choice(self, reply: Reply) -> Choice:
        choices = read_choices("completions", reply.body)
        if not choices or choices[0].positions is None:
            raise LogprobsUnavailable(f"{self.server} sent a prompt back without log-probabilities: ask again.")
        return choices[0]

    def _starts(self, ask: Ask, prompts: Sequence[str], groups: Sequence[Sequence[Joint]]) -> list[int]:
        """Return where scoring begins for each prompt: at the first token that is not the prompt's alone."""
        unclear = [index for index, group in enumerate(groups) if any(joint.inside is None for joint in group)]
        replies = ask([self._request(prompts[index]) for index in unclear])
        alone = {index: self._joint(reply, prompts[index]).names for index, reply in zip(unclear, replies, strict=True)}
        starts = []
        for index, group in enumerate(groups):
            inside = min((joint.inside or 0 for joint in group), default=0)
            names = alone[index] if index in alone else group[0].names[:inside] if group else ()
            starts.append(split_joint(names, [joint.names for joint in group]) if group else 0)
        return starts

    def _scored(self, positions: Sequence[Position]) -> TokenScores:
        if any(position.drawn.logprob is None for position in positions):
            raise LogprobsUnavailable(
                f"{self.server} sent no log-probability for a token of a continuation: ask again."
            )
        rows = [sorted_row(position, max(1, self.top), self.server) for position in positions]
        return token_scores(rows, [position.drawn for position in positions], self.numbers, self.top)


def tokens_inside(tokens: Sequence[str], prompt: str, text: str) -> int | None:
    """Return how many tokens end within `prompt`; None when they do not spell out prompt and text.

    A beginning-of-text token, which shows as a text of its own, may come first.

    >>> tokens_inside(["<s>", "In", " the", " sun"], "In the", " sun")
    3
    """
    spelled, joint = "".join(tokens), prompt + text
    if not spelled.endswith(joint):
        return None
    end, inside = len(spelled) - len(joint) + len(prompt), 0
    for token in tokens:
        end -= len(token)
        if end < 0:
            break
        inside += 1
    return inside
