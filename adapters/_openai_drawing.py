"""Drawing completions from a server: n at once or one by one, and what came back as `Completion`s."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from calibwrap.adapters._openai_probe import Shown
from calibwrap.adapters._openai_replies import Choice, Position, held_back, read_choices
from calibwrap.adapters._openai_requests import EXTRAS, STANDARD, Asked, Dialect, Draw
from calibwrap.adapters._openai_scores import TokenNumbers, sorted_row, token_scores
from calibwrap.adapters._openai_transport import Reply
from calibwrap.adapters._shared import cut_at_stop
from calibwrap.base import Completion, Sampling
from calibwrap.errors import CapabilityError, LogprobsUnavailable, SemanticsMismatch, ServerError
from calibwrap.questions import Prompt
from calibwrap.scores import TokenScores

Ask = Callable[[Sequence[Asked]], list[Reply]]
STOPPED = ("stop", "eos", "end_turn", "stop_sequence", "completed")
CUT = ("length", "max_tokens", "max_output_tokens")


@dataclass(frozen=True)
class Drawer:
    """How completions are drawn and read."""

    sampling: Sampling
    top: int
    """Listed tokens a position; 0 for the drawn one alone."""
    server: str
    numbers: TokenNumbers

    def check(self, shown: Shown) -> None:
        """Return nothing when an endpoint can draw at this temperature and report raw values.

        Raises:
            SemanticsMismatch: its values follow the sampling temperature.
            CapabilityError: it does not let the temperature be set.
        """
        temperature = self.sampling.temperature
        if temperature == 1.0:
            return
        if not shown.free_temperature:
            raise CapabilityError(
                f"{self.server} does not let the temperature of {shown.dialect.model!r} be set, and {temperature} was "
                "asked for: draw at temperature=1.0."
            )
        if shown.semantics != "raw":
            how = "follow" if shown.semantics == "follows the sampling temperature" else "may follow"
            raise SemanticsMismatch(
                f"Log-probabilities of {self.server} {how} the sampling temperature, so that at {temperature} they are "
                "not the model's own: draw at temperature=1.0, or make the server report them from before sampling "
                "(SGLang: SGLANG_RETURN_ORIGINAL_LOGPROB=1; vLLM: --logprobs-mode raw_logprobs)."
            )

    def completions(
        self, ask: Ask, prompts: Sequence[tuple[Prompt, Dialect]], repeated: Callable[[Prompt], str]
    ) -> list[list[Completion]]:
        """Return the completions of each prompt; those that one request does not give come from more.

        Raises:
            LogprobsUnavailable: an answer without log-probabilities.
            ServerError: an answer was filtered, or ended without a reason.
        """
        found: list[list[Completion]] = [[] for _ in prompts]
        missing = [(index, self.draw(0, self.sampling.n)) for index in range(len(prompts))]
        while missing:
            replies = ask([(prompts[index][0], draw) for index, draw in missing])
            for (index, _), reply in zip(missing, replies, strict=True):
                prompt, dialect = prompts[index]
                choices = read_choices(dialect.endpoint, reply.body)[: self.sampling.n - len(found[index])]
                if not choices:
                    raise ServerError(f"Expected a completion from {self.server}. Got a reply without any.")
                spent = tokens_drawn(reply.body) if len(choices) == 1 else None
                found[index] += [self.completion(choice, dialect, repeated(prompt), spent) for choice in choices]
            missing = [
                (index, self.draw(place, 1))
                for index, group in enumerate(found)
                for place in range(len(group), self.sampling.n)
            ]
        return found

    def draw(self, place: int, n: int) -> Draw:
        """Return the request of completions `place`, `place` + 1, ... of a prompt."""
        own = self.sampling
        seed = None if own.seed is None else own.seed + place
        kept = own.temperature == 0.0 or own.seed is not None
        # one more than wanted, since the drawn token may push the last one out of the list
        return Draw(own.max_tokens, own.temperature, n, seed, own.stop, self.top + 1, kept=kept)

    def completion(self, choice: Choice, dialect: Dialect, repeated: str, spent: int | None) -> Completion:
        """Return a choice as a completion; `spent` is how many tokens the server counted for it, where it is known."""
        positions = self.positions(choice)
        text, finish = choice.text.removeprefix(repeated), self._finish(choice)
        if dialect.endpoint == "responses":
            positions, text, finish = cut_here(positions, text, finish, self.sampling)
        scores = self.scores(positions, dialect)
        if scores.chosen is not None and not self.sampling.stop:
            for number, position in zip(scores.chosen, positions, strict=True):
                if adds_no_text(position.drawn.text, choice.text):
                    self.numbers.silence(int(number))
        unreported = 0 if spent is None or finish == "stop" else max(0, spent - len(choice.positions or ()))
        return Completion(text, scores, finish, self._settings(dialect) | {"unreported_tokens": unreported})

    def scores(self, positions: Sequence[Position], dialect: Dialect) -> TokenScores:
        """Return the scores of drawn tokens."""
        asked = min(dialect.asked, self.top + 1)
        rows = [sorted_row(position, asked, self.server) for position in positions]
        return token_scores(rows, [position.drawn for position in positions], self.numbers, self.top)

    def streamed_positions(self, event: Choice) -> tuple[Position, ...]:
        """Return the drawn tokens that an event brings; most servers send some events without any."""
        return () if event.positions is None and not event.thoughts else self.positions(event)

    def positions(self, choice: Choice) -> tuple[Position, ...]:
        """Return the drawn tokens of a choice.

        Raises:
            LogprobsUnavailable: text without log-probabilities, or thoughts before it.
        """
        cut = not choice.text or self.sampling.stop  # llama-server leaves out tokens that a stop text cuts
        if held_back([choice]) or (cut and choice.positions is None and choice.finish in STOPPED):
            return ()
        if choice.positions is None or any(not position.listed for position in choice.positions):
            raise LogprobsUnavailable(
                f"{self.server} drew {choice.text[:40]!r} without a list of log-probabilities at every token, though "
                "it gave one to the probe. If it decodes speculatively, switch that off."
            )
        if choice.thoughts:
            raise LogprobsUnavailable(
                f"The model at {self.server} thought before it answered ({choice.thoughts[:40]!r}), so that text and "
                "log-probabilities do not belong together: switch thinking off at the server."
            )
        return choice.positions

    def _finish(self, choice: Choice) -> Literal["stop", "length"]:
        if choice.finish in STOPPED:
            return "stop"
        if choice.finish in CUT:
            return "length"
        raise ServerError(
            f"Expected a completion of {self.server} to end with 'stop' or 'length'. Got "
            f"{choice.finish or 'no reason'!r} after {choice.text[:40]!r}: a content filter or a tool call took the "
            "answer's place; change the prompt."
        )

    def _settings(self, dialect: Dialect) -> dict[str, Any]:
        own = {name: getattr(self.sampling, name) for name in ("temperature", "max_tokens", "seed", "stop")}
        neutral = {**STANDARD, **(EXTRAS if dialect.extras else {})}
        sent = {name: value for name, value in neutral.items() if name not in dialect.refused}
        if dialect.endpoint == "responses":
            own["seed"], sent = None, {"top_p": 1.0}
        return own | sent | {"endpoint": dialect.endpoint}


def adds_no_text(token: str, text: str) -> bool:
    """Return whether a drawn token is a control token that a server names and leaves out of the text.

    >>> adds_no_text("</s>", "Paris"), adds_no_text("</s>", "a </s> tag"), adds_no_text(" Paris", "Paris")
    (True, False, False)
    """
    return len(token) > 2 and token[0] in "<[" and token[-1] in ">]" and token not in text


def tokens_drawn(body: Mapping[str, Any]) -> int | None:
    """Return how many tokens a server says that it drew, thoughts left out; None when it does not say."""
    usage = body.get("usage") or {}
    drawn = usage.get("completion_tokens")
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return drawn - thought if isinstance(drawn, int) else None


def cut_here(
    positions: tuple[Position, ...], text: str, finish: Literal["stop", "length"], sampling: Sampling
) -> tuple[tuple[Position, ...], str, Literal["stop", "length"]]:
    """Return an answer of the Responses endpoint, cut where it was asked to end.

    That endpoint knows no stop texts, and no answers of fewer than 16 tokens.

    >>> cut_here((), "Paris. Next", "length", Sampling(stop=(".",)))
    ((), 'Paris', 'stop')
    """
    if len(positions) > sampling.max_tokens:
        positions, finish = positions[: sampling.max_tokens], "length"
        text = _text(positions)
    kept, found = cut_at_stop(text, sampling.stop)
    if not found:
        return positions, text, finish
    ends = (count for count in range(1, len(positions) + 1) if cut_at_stop(_text(positions[:count]), sampling.stop)[1])
    return positions[: next(ends, len(positions))], kept, "stop"


def _text(positions: Sequence[Position]) -> str:
    return b"".join(position.drawn.data or b"" for position in positions).decode("utf-8", "replace")
