"""OpenAI's API and every server that speaks it: lists of the most probable tokens, read for what they are.

What a server gives is found out by asking it (`probe`), before anything else is asked. Lists are never renormalised:
what they do not show is in `log_tail` and `log_cut`, and readouts turn it into bounds.
"""

import threading
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

from calibwrap.adapters._openai_asking import Asker
from calibwrap.adapters._openai_client import check_client, is_openai, make_client, server_name
from calibwrap.adapters._openai_decisions import decision_body, read_decided
from calibwrap.adapters._openai_decisions import most_tokens as most_decision_tokens
from calibwrap.adapters._openai_drawing import Drawer
from calibwrap.adapters._openai_echo import Echo
from calibwrap.adapters._openai_findings import Findings, Wanted, described, probe
from calibwrap.adapters._openai_probe import DRAWS, Shown
from calibwrap.adapters._openai_replies import Choice, first_position, read_choices, to_draw_again
from calibwrap.adapters._openai_requests import Draw
from calibwrap.adapters._openai_scores import TokenNumbers, sorted_row, token_scores
from calibwrap.adapters._openai_settings import check_whole
from calibwrap.adapters._openai_sse import StreamingTransport
from calibwrap.adapters._openai_stream import streamed
from calibwrap.adapters._openai_transport import Request
from calibwrap.adapters._shared import check_prompts
from calibwrap.base import Adapter, Calibrator, Completion, Sampling, Stream
from calibwrap.capabilities import Needs, Provides, check_needs
from calibwrap.errors import CalibrationWarning, CapabilityError, InputError
from calibwrap.provenance import Provenance
from calibwrap.questions import Chat, Prompt, Question
from calibwrap.scores import Decided, TokenScores

_PROBED: dict[tuple[object, ...], Findings] = {}
"""What servers have shown to this process, by address, model and how they were asked."""
_PROBING = threading.Lock()


class OpenAI(Adapter):
    """A model behind an OpenAI-compatible server; safe to use from several threads."""

    name = "openai"
    wraps: ClassVar[tuple[str, ...]] = ("openai",)
    caches = True

    def __init__(
        self,
        client: Any,
        *,
        model: str = "",
        endpoint: Wanted = "auto",
        top_logprobs: int = 20,
        max_concurrency: int = 8,
        max_requests: int | None = None,
        max_tokens: int | None = None,
        max_retries: int = 8,
        cache: str | Path | None = None,
        context_length: int | None = None,
    ) -> None:
        """Wrap an `openai.OpenAI` or `AzureOpenAI`, which stays its owner's to close.

        Args:
            client: knows address, key and timeout.
            model: the model's name at the server, which must be given; at Azure the deployment's.
            endpoint: "auto" takes chat completions for chats (Responses where only they give log-probabilities) and
                completions for plain text; or one of "chat", "completions", "responses" alone.
            top_logprobs: how many tokens to ask for; where fewer are allowed, fewer are asked.
            max_concurrency: most requests on their way at once.
            max_requests: most requests ever sent; None for no limit.
            max_tokens: most tokens ever spent; None for no limit.
            max_retries: how often a request is repeated that failed on its way, or that came too early.
            cache: file in which answers are kept.
            context_length: how many tokens fit, where the server does not tell.

        Raises:
            InputError: the client is of another kind, or a value is out of range.
        """
        check_client(client)
        if not isinstance(model, str) or not model:
            raise InputError(
                f"'model' must be the model's name at the server: wrap(client, model='gpt-4o'). Got {model!r}."
            )
        if endpoint not in get_args(Wanted):
            raise InputError(f"'endpoint' must be one of {', '.join(get_args(Wanted))}. Got {endpoint!r}.")
        check_whole("top_logprobs", top_logprobs, least=1)
        check_whole("context_length", context_length, least=1, optional=True)
        self.model = model
        self._endpoint, self._asked, self._context_length = endpoint, top_logprobs, context_length
        self._concurrency = max_concurrency
        self._server = server_name(client)
        self._extras = not is_openai(client)
        self._transport = StreamingTransport(
            client,
            max_concurrency=max_concurrency,
            max_requests=max_requests,
            max_tokens=max_tokens,
            cache=cache,
            max_retries=max_retries,
        )
        self._owned: Any = None
        self._numbers = TokenNumbers()
        self._warned = False
        self._asker = Asker(self._transport, self._server, self._shown)

    @classmethod
    def load(cls, target: str, *, base_url: str | None = None, api_key: str | None = None, **options: Any) -> Self:
        """Return an adapter around the model named `target`.

        Options of this class are those of its constructor; `azure_endpoint=` makes an Azure client, and all others go
        to the SDK's client untouched. Without `api_key` the key is that of OPENAI_API_KEY; a server on this machine
        needs none.

        Raises:
            MissingExtra: the SDK is not installed.
            ServerError: no key for a server elsewhere.
            InputError: an option that nobody knows, or a value out of range.
        """
        own = {name: options.pop(name) for name in _OPTIONS if name in options}
        client = make_client(base_url, api_key, options)
        try:
            adapter = cls(client, model=target, **own)
        except BaseException:
            client.close()
            raise
        adapter._owned = client
        return adapter

    @cached_property
    def findings(self) -> Findings:
        """What the server has shown; asked at first use, once for a process."""
        key = (self._server, self.model, self._endpoint, self._asked, self._extras)
        with _PROBING:
            if key not in _PROBED:
                asked = (self.model, self._endpoint, self._asked, self._extras)
                _PROBED[key] = probe(lambda request: self._transport.send([request])[0], *asked, self._server)
        found = _PROBED[key]
        if found.other_model:
            warnings.warn(
                f"{self._server} lists no model {self.model!r}, and {found.other_model!r} answers in its place: a "
                "calibrator would be kept under the wrong name. Use the name that the server lists.",
                CalibrationWarning,
                stacklevel=2,
            )
        return found

    @cached_property
    def provides(self) -> Provides:  # type: ignore[override]  # found out by asking, at first use
        """What this model on this server can give, as the probe has shown."""
        found = self.findings
        return Provides(
            top=found.top,
            score=not found.echo,
            decides=found.decisions is not None,
            token_bytes=found.top > 0,
            plain=found.plain is not None,
            chat=found.chat is not None,
            streams=any(one.dialect.endpoint != "responses" for one in found.shown),
            context_length=self._context_length or found.told.context_length,
            batch_size=4 * self._concurrency,
        )

    def next_token(
        self, prompts: Sequence[Prompt], ids: Sequence[Sequence[int]] | None = None, top: int | None = None
    ) -> list[TokenScores]:
        """Return one position a prompt: the `top` most probable tokens, measured at temperature 1.

        Raises:
            CapabilityError: given ids, the whole vocabulary, or a longer list than the server gives.
            LogprobsUnavailable: an answer without log-probabilities, or with those of something before the answer.
            SemanticsMismatch: values that are no log-probabilities.
            PromptTooLong: the server says that a prompt does not fit.
        """
        check_prompts(prompts)
        if ids is not None:
            check_needs("next_token(ids=...)", Needs(given_ids=1), self.name, self.provides)
        if top is None:
            check_needs("next_token without 'top'", Needs(full_vocabulary=True), self.name, self.provides)
        length = self._checked_top(top or 0, least=1)
        answers = self._measured(prompts)
        found = []
        for prompt, choices in zip(prompts, answers, strict=True):
            position, asked = first_position(choices, self._server), self._asker.dialect(prompt).asked
            row = sorted_row(position, asked, self._server, with_drawn=False)
            found.append(token_scores([row], None, self._numbers, length))
        return found

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, steer: Calibrator | None = None
    ) -> list[list[Completion]]:
        """Return `sampling.n` completions a prompt, from one request each where the server allows that.

        Where it does not, completion i comes from a request of its own with the seed `sampling.seed + i`. What was
        drawn without a seed is never kept in a cache. `chosen_logprob` is NaN where the server does not tell it.

        Raises:
            CapabilityError: `steer`, or a longer list than the server gives.
            SemanticsMismatch: the server's values follow the sampling temperature, and it is not 1.
            LogprobsUnavailable: an answer without log-probabilities.
            ServerError: a content filter took an answer away.
            PromptTooLong: the server says that a prompt and `max_tokens` do not fit.
        """
        drawer = self._drawer(prompts, sampling, steer)
        drawn = drawer.completions(
            self._asker.ask, [(prompt, self._asker.dialect(prompt)) for prompt in prompts], self._repeated
        )
        self._warn_of_unreported(drawn)
        return drawn

    def stream(self, prompt: Prompt, sampling: Sampling, steer: Calibrator | None = None, index: int = 0) -> Stream:
        """Yield the tokens of one answer as the server sends them, drawn with the seed `sampling.seed + index`.

        An answer that came to its end is kept in a cache when it was drawn with a seed; one that is there is shown at
        once. A stream that is closed early counts with its estimate, since the server tells no usage then.

        Raises:
            CapabilityError: `steer`, a longer list than the server gives, or an endpoint that is not streamed.
            SemanticsMismatch, LogprobsUnavailable, ServerError, PromptTooLong: as `generate`; and a ServerError for a
                stream that breaks off, which is not asked for again.
        """
        drawer = self._drawer([prompt], sampling, steer)
        if self._asker.dialect(prompt).endpoint == "responses":
            raise CapabilityError(
                f"{self._server} answers this prompt at its Responses endpoint, which is not streamed here: ask "
                "without streaming."
            )
        events = self._asker.open(prompt, drawer.draw(index, 1))
        return streamed(drawer, events, self._asker.dialect(prompt), self._repeated(prompt))

    def _drawer(self, prompts: Sequence[Prompt], sampling: Sampling, steer: Calibrator | None) -> Drawer:
        """Return how completions of `prompts` are drawn and read, when they can be."""
        check_prompts(prompts)
        if steer is not None:
            check_needs(f"the calibrator '{steer.kind}'", Needs(steers=True), self.name, self.provides)
        drawer = Drawer(sampling, self._checked_top(sampling.top, least=0), self._server, self._numbers)
        for prompt in prompts:
            drawer.check(self._shown(prompt))
        return drawer

    def score(
        self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]], top: int | None = 0
    ) -> list[list[TokenScores]]:
        """Return the scores of each prompt's continuations, where the server sends prompts back with their values.

        One request a continuation; `chosen` are the tokens from where the continuations part from the prompt.

        Raises:
            CapabilityError: the server does not, or not rightly; a chat, whose text only the server knows.
            InputError: an empty continuation, or not one list a prompt.
            PromptTooLong: the server says that a prompt with its continuation does not fit.
        """
        check_prompts(prompts)
        if len(prompts) != len(continuations):
            raise InputError(f"Expected continuations for {len(prompts)} prompts. Got {len(continuations)} lists.")
        check_needs("score()", Needs(score=True), self.name, self.provides)
        if any(isinstance(prompt, Chat) for prompt in prompts):
            raise CapabilityError(
                f"{self._server} scores continuations of plain text only, since the text of a chat is made inside the "
                "server: use a plain template, such as questions.CLOZE, or the label readout."
            )
        echo = Echo(self._checked_top(top, least=0), self._server, self._numbers)
        return echo.scores(self._asker.ask, [str(prompt) for prompt in prompts], continuations)

    def decide(self, questions: Sequence[Question]) -> list[Decided]:
        """Return the probabilities of the questions' options from the server's decision endpoint.

        Raises:
            CapabilityError: the server has none for this model.
            ServerError: the model declined to answer, or the reply has another shape.
        """
        path = self.findings.decisions
        if path is None:
            return super().decide(questions)
        bodies = [decision_body(path, self.model, question) for question in questions]
        replies = self._transport.send([Request(path, body, most_decision_tokens(body)) for body in bodies])
        return [read_decided(reply.body, question) for reply, question in zip(replies, questions, strict=True)]

    def tokenize(self, prompt: Prompt, continuation: str = "") -> tuple[list[int], list[int]]:
        """Refuse: servers of this kind do not show their tokenizer.

        Raises:
            CapabilityError: always.
        """
        raise CapabilityError(
            f"{self._server} does not show its tokenizer: use hf, llama-cpp or vllm where token ids are needed."
        )

    def token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of tokens that this adapter has listed; b"" for one without text of its own."""
        return [self._numbers.bytes_of(number) for number in ids]

    def fingerprint(self) -> Provenance:
        """Return model name, version and semantics as the probe has shown them.

        The server's address is not part of it: one model on two servers is one model, and an address is nobody's
        business in a file that is passed on. `revision` is what the server tells of the model: its full name where it
        answers under another than the one asked for, and `system_fingerprint` where it has OpenAI's form ("fp_...");
        other servers write their own build there, which is no part of a model.
        """
        shown = self.findings.shown
        raw = all(one.semantics != "follows the sampling temperature" for one in shown)
        return Provenance(
            runtime=self.name,
            model=self.model,
            revision=" ".join(dict.fromkeys(one.revision for one in shown if one.revision)),
            template="the server's own" if self.findings.chat else "",
            semantics="raw" if raw else "raw at temperature 1 only",
        )

    def probe(self) -> Mapping[str, str]:
        """Return what asking the server has shown, a finding for each question."""
        return described(self.findings)

    def usage(self) -> Mapping[str, int]:
        """Return requests, retries, answers from the cache, and tokens so far."""
        return self._transport.usage()

    def close(self) -> None:
        """End the threads and close the cache, and the client if `load` made it."""
        self._transport.close()
        if self._owned is not None:
            self._owned.close()

    def _warn_of_unreported(self, drawn: Sequence[Sequence[Completion]]) -> None:
        """Warn once where a server kept tokens' log-probabilities to itself."""
        if not self._warned and any(one.settings["unreported_tokens"] for group in drawn for one in group):
            self._warned = True
            warnings.warn(
                f"{self._server} drew tokens without telling their log-probabilities; they have no position in "
                "'scores', and settings['unreported_tokens'] counts them. llama-server does so with parts of "
                "characters, such as most emoji are made of.",
                CalibrationWarning,
                stacklevel=3,
            )

    def _measured(self, prompts: Sequence[Prompt]) -> list[list[Choice]]:
        """Return the answers of one token; those that show nothing are drawn again."""
        found: dict[int, list[Choice]] = {}
        missing: list[int] = list(range(len(prompts)))
        for seed in (None, *range(1, DRAWS)):
            replies = self._asker.ask([(prompts[index], Draw(seed=seed)) for index in missing])
            for index, reply in zip(missing, replies, strict=True):
                found[index] = read_choices(self._asker.dialect(prompts[index]).endpoint, reply.body)
            missing = [index for index in missing if to_draw_again(found[index])]
        return [found[index] for index in range(len(prompts))]

    def _checked_top(self, top: int | None, least: int) -> int:
        """Return `top` when lists of that length can be had."""
        if top is None:
            check_needs("top=None", Needs(full_vocabulary=True), self.name, self.provides)
        elif top < least:
            raise InputError(f"'top' must be at least {least}. Got {top!r}.")
        elif top > (self.provides.top or 0):
            raise CapabilityError(
                f"A list of {top} tokens was asked for, and {self._server} lists {self.provides.top}: ask for fewer, "
                "load with a larger top_logprobs=, or raise the server's limit (vLLM: --max-logprobs)."
            )
        return top or 0

    def _shown(self, prompt: Prompt) -> Shown:
        """Return the endpoint that reads `prompt`."""
        found = self.findings
        if isinstance(prompt, Chat):
            if found.chat is None:
                check_needs("a chat", Needs(chat=True), self.name, self.provides)
            if prompt.prefix and not found.goes_on:
                raise CapabilityError(
                    f"{self._server} does not go on with an answer that is begun (Chat.prefix): leave the prefix out, "
                    "or use vLLM or llama-server."
                )
        best = found.chat if isinstance(prompt, Chat) else found.plain or found.chat
        if best is None:
            raise CapabilityError(f"{self._server} has a decision endpoint only: use readout='decision'.")
        return best

    def _repeated(self, prompt: Prompt) -> str:
        """Return what a reply repeats before what is new."""
        return prompt.prefix if isinstance(prompt, Chat) and self.findings.repeats_prefix else ""


_OPTIONS = (
    *("endpoint", "top_logprobs", "context_length", "cache"),
    *("max_concurrency", "max_requests", "max_tokens", "max_retries"),
)
