"""Wrong ways to read, to score, and to claim; the key is the check that must catch it."""

from dataclasses import replace

import numpy as np

from calibwrap.capabilities import Provides
from calibwrap.errors import CapabilityError, InputError
from calibwrap.scores import log_softmax
from calibwrap.testing import ToyAdapter
from calibwrap.testing.toy import TOKENS


def changed(scores, **fields):
    """The same record with some fields changed and the tail worked out anew."""
    return replace(scores, log_tail=None, **fields)


class DropsTheLast(ToyAdapter):
    def next_token(self, prompts, ids=None, top=None):
        return super().next_token(prompts, ids, top)[: max(1, len(prompts) - 1)]


class Log2(ToyAdapter):
    def next_token(self, prompts, ids=None, top=None):
        found = super().next_token(prompts, ids, top)
        return [changed(scores, logprobs=scores.logprobs / np.log(2.0)) for scores in found]


class RenormalisesTheList(ToyAdapter):
    def next_token(self, prompts, ids=None, top=None):
        found = super().next_token(prompts, ids, top)
        return [changed(scores, logprobs=log_softmax(scores.logprobs)) for scores in found]


class ForgetsTheTail(ToyAdapter):
    def next_token(self, prompts, ids=None, top=None):
        found = super().next_token(prompts, ids, top)
        for scores in found:
            object.__setattr__(scores, "log_tail", np.array([-np.inf]))
        return found


class ListsTheFirstTokens(ToyAdapter):
    def next_token(self, prompts, ids=None, top=None):
        if top is None:
            return super().next_token(prompts, ids, top)
        return super().next_token(prompts, ids=[list(range(min(top, len(TOKENS))))] * len(prompts))


class SharesTheTailOut(ToyAdapter):
    """Takes the mean of what is not listed for the most of it."""

    def next_token(self, prompts, ids=None, top=None):
        found = super().next_token(prompts, ids, top)
        if top is None:
            return found
        return [replace(scores, log_cut=scores.log_tail - np.log(len(TOKENS) - top)) for scores in found]


class CutsAtTheDrawnToken(ToyAdapter):
    """vLLM's reply: the drawn token stands in the list too, and is no bound for the others."""

    def generate(self, prompts, sampling, steer=None):
        groups = super().generate(prompts, sampling, steer)

        def added(scores):
            rows = np.c_[scores.logprobs, scores.chosen_logprob]
            ids = np.c_[scores.ids, scores.chosen]
            return replace(scores, logprobs=rows, ids=ids, log_tail=scores.log_tail, log_cut=rows.min(axis=1))

        return [[replace(one, scores=added(one.scores)) for one in group] for group in groups]


class SpellsTokensAsText(ToyAdapter):
    """Half a character is decoded alone."""

    def token_bytes(self, ids):
        return [part.decode(errors="replace").encode() for part in super().token_bytes(ids)]


class StripsTheSpace(ToyAdapter):
    def token_bytes(self, ids):
        return [part.strip() for part in super().token_bytes(ids)]


class SpellsTheEndToken(ToyAdapter):
    def token_bytes(self, ids):
        return [part or b"</s>" for part in super().token_bytes(ids)]


class SpellsEachTokenOnce(ToyAdapter):
    def token_bytes(self, ids):
        return super().token_bytes(list(dict.fromkeys(ids)))


class SortsGivenIds(ToyAdapter):
    def next_token(self, prompts, ids=None, top=None):
        return super().next_token(prompts, ids and [sorted(own) for own in ids], top)


class SharesGivenIds(ToyAdapter):
    """Gives every prompt the ids of the first one, under the names that were asked."""

    def next_token(self, prompts, ids=None, top=None):
        if ids is None:
            return super().next_token(prompts, ids, top)
        found = super().next_token(prompts, [ids[0]] * len(prompts))
        return [changed(scores, ids=[list(own)]) for scores, own in zip(found, ids, strict=True)]


class ReadsThePartsApart(ToyAdapter):
    """Tokenises prompt and continuation apart and glues the ids: a second begin token, no merge at the seam."""

    def _joint(self, prompt, text):
        super()._joint(prompt, text)
        return [*self.model.encode(prompt), *self.model.encode(text)]


class TokenizesThePartsApart(ToyAdapter):
    def tokenize(self, prompt, continuation=""):
        start, added = super().tokenize(prompt)[0], self.model.encode(continuation)
        return start, added if continuation else []


class ShiftsByOne(ToyAdapter):
    def _scored(self, joint, shared, top):
        rows = [self.model.next_logprobs(joint[: at - 1]) for at in range(shared, len(joint))]
        return self._listed(rows, top, joint[shared:])


class ScoresAnotherToken(ToyAdapter):
    """Reports the likeliest token's value as the scored token's."""

    def _scored(self, joint, shared, top):
        scores = super()._scored(joint, shared, None)
        return changed(scores, chosen_logprob=scores.logprobs.max(axis=1))


class PollutesTheCache(ToyAdapter):
    """Goes on from the previous continuation instead of the prompt."""

    def score(self, prompts, continuations, top=0):
        groups = []
        for prompt, texts in zip(prompts, continuations, strict=True):
            befores = ["", *texts[:-1]]
            pairs = zip(befores, texts, strict=True)
            groups.append([super(PollutesTheCache, self).score([prompt + b], [[t]], top)[0][0] for b, t in pairs])
        return groups


class CutsRaggedLists(ToyAdapter):
    def score(self, prompts, continuations, top=0):
        shortest = min(len(texts) for texts in continuations)
        return super().score(prompts, [texts[:shortest] for texts in continuations], top)


class ScoresNothing(ToyAdapter):
    """Answers an empty continuation with the score of something else."""

    def _joint(self, prompt, text):
        return super()._joint(prompt, text or " sun")


class PadsOnTheWrongSide(ToyAdapter):
    """In a batch, short prompts are read at the last prompt's end."""

    def _read(self, prompts):
        starts = super()._read(prompts)
        longest = max(starts, key=len, default=[])
        return [[*start, *longest[len(start) :]] for start in starts]


class SortsByLength(ToyAdapter):
    def next_token(self, prompts, ids=None, top=None):
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        found = super().next_token(prompts, ids, top)
        return [found[index] for index in order]


class DropsNonAscii(ToyAdapter):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        encode = self.model.encode
        object.__setattr__(self.model, "encode", lambda text: encode(text.encode("ascii", "ignore").decode()))


class TakesAnything(ToyAdapter):
    """Turns whatever comes into text."""

    def _text(self, prompt):
        return str(prompt) if not isinstance(prompt, str) else prompt or " "

    def _read(self, prompts):
        return [self.model.encode(self._text(prompt)) for prompt in prompts]


class RaisesTypeError(ToyAdapter):
    def _read(self, prompts):
        try:
            return super()._read(prompts)
        except InputError as error:
            raise TypeError("a foreign error") from error


class CutsLongPrompts(ToyAdapter):
    def _read(self, prompts):
        limit = self.provides.context_length
        return [self.model.encode(prompt)[-limit:] for prompt in prompts]


class HoldsLess(ToyAdapter):
    """Claims twice the context that it takes."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.provides = replace(self.provides, context_length=2048)

    def _read(self, prompts):
        honest = ToyAdapter(self.model)
        return honest._read(prompts)


class EmptiesTheLists(ToyAdapter):
    def generate(self, prompts, sampling, steer=None):
        groups = super().generate(prompts, sampling, steer)
        del prompts[1:]
        return groups


class StripsTheContinuations(ToyAdapter):
    def score(self, prompts, continuations, top=0):
        found = super().score(prompts, continuations, top)
        for texts in continuations:
            texts[:] = [text.strip() for text in texts]
        return found


class ChangesItsFingerprint(ToyAdapter):
    def fingerprint(self):
        self.calls["fingerprint"] += 1
        return replace(super().fingerprint(), revision=str(self.calls["fingerprint"]))


class SaysNoTokenizer(ToyAdapter):
    def fingerprint(self):
        return replace(super().fingerprint(), tokenizer="")


def denying(**fields):
    """A class that denies an ability and has it."""

    class Denies(ToyAdapter):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.able, self.provides = self, replace(self.provides, **fields)
            self.able = ToyAdapter(self.model)

        def generate(self, prompts, sampling, steer=None):
            return self.able.generate(prompts, sampling, steer)

        def stream(self, prompt, sampling, steer=None, index=0):
            return self.able.stream(prompt, sampling, steer, index)

        def next_token(self, prompts, ids=None, top=None):
            return self.able.next_token(prompts, ids, top)

        def score(self, prompts, continuations, top=0):
            return self.able.score(prompts, continuations, top)

        def tokenize(self, prompt, continuation=""):
            return self.able.tokenize(prompt, continuation)

    Denies.__name__ = f"Denies_{'_'.join(fields)}"
    return Denies


class ClaimsEverything(ToyAdapter):
    """Claims the whole vocabulary and lists three tokens."""

    def next_token(self, prompts, ids=None, top=None):
        if ids is None and top is None:
            raise CapabilityError("the backend lists three tokens: ask for top=3")
        return super().next_token(prompts, ids, top)


class ClaimsALongerList(ToyAdapter):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, provides=Provides(top=6), **options)

    def next_token(self, prompts, ids=None, top=None):
        return super().next_token(prompts, ids, None if top is None else min(top, 3))


ADAPTER_SABOTEURS = [
    ("check_next_token_is_one_position", DropsTheLast),
    ("check_full_rows_sum_to_one", Log2),
    ("check_lists_keep_their_mass", RenormalisesTheList),
    ("check_lists_keep_their_mass", ForgetsTheTail),
    ("check_lists_hold_the_likeliest", ListsTheFirstTokens),
    ("check_cut_bounds_what_is_not_listed", SharesTheTailOut),
    ("check_cut_bounds_what_is_not_listed", CutsAtTheDrawnToken),
    ("check_token_bytes_join_to_the_text", SpellsTokensAsText),
    ("check_token_bytes_join_to_the_text", StripsTheSpace),
    ("check_token_bytes_join_to_the_text", SpellsTheEndToken),
    ("check_token_bytes_join_to_the_text", SpellsEachTokenOnce),
    ("check_given_ids_agree", SortsGivenIds),
    ("check_given_ids_agree", SharesGivenIds),
    ("check_score_reads_the_joint_tokens", ReadsThePartsApart),
    ("check_scored_rows_hold_the_token", ScoresAnotherToken),
    ("check_score_agrees_with_stepping", ShiftsByOne),
    ("check_score_agrees_with_stepping", ScoresAnotherToken),
    ("check_continuation_order_does_not_matter", PollutesTheCache),
    ("check_ragged_continuations", CutsRaggedLists),
    ("check_empty_continuation", ScoresNothing),
    ("check_batch_equals_singles", PadsOnTheWrongSide),
    ("check_prompt_order_does_not_matter", SortsByLength),
    ("check_non_ascii_text", DropsNonAscii),
    ("check_empty_input_is_named", TakesAnything),
    ("check_empty_input_is_named", RaisesTypeError),
    ("check_non_text_input_is_named", TakesAnything),
    ("check_long_input_is_named", CutsLongPrompts),
    ("check_context_length_is_true", HoldsLess),
    ("check_context_length_is_true", CutsLongPrompts),
    ("check_tokenize_is_joint", TokenizesThePartsApart),
    ("check_inputs_are_left_alone", EmptiesTheLists),
    ("check_inputs_are_left_alone", StripsTheContinuations),
    ("check_fingerprint", ChangesItsFingerprint),
    ("check_fingerprint", SaysNoTokenizer),
    ("check_provides_tells_the_truth", ClaimsEverything),
    ("check_provides_tells_the_truth", ClaimsALongerList),
    *(
        ("check_provides_tells_the_truth", denying(**field))
        for field in (
            {"full_vocabulary": False},
            {"given_ids": 0},
            {"given_ids": 3},
            {"top": 0},
            {"top": 3},
            {"score": False},
            {"tokenize": False},
            {"chat": False},
            {"steers": False},
            {"streams": False},
        )
    ),
]
"""(name of the check, class of the wrong adapter)."""
