"""Whether a run could use every question that it trains on, by the tokenizer alone: no weights are read."""

from collections.abc import Sequence
from typing import Any

from calibwrap.questions import TEMPLATES
from calibwrap.training.reading import WeightSettings
from calibwrap.training.settings import CattoSettings, RewardingDoubtSettings


def check_examples(
    settings: WeightSettings, train: Sequence[Any], held_out: Sequence[Any], model: Any, tokenizer: Any
) -> None:
    """Return nothing when every example fits `max_length` and has what the method wants.

    Args:
        settings: what to train.
        train: the questions of `settings.train`.
        held_out: held-out questions, which Rewarding Doubt evaluates in the same way.
        model: of the same configuration; its weights are not looked at and may be on the device "meta".
        tokenizer: as `load_tokenizer` gives it.

    Raises:
        PromptTooLong: an example that is longer, by the name of its question. Which wrong answer is the hardest only
            the weights can say: with `rejected: hardest`, right answers alone are measured.
        InputError: questions that are not those of the method, its readout or its judge.
    """
    if isinstance(settings, CattoSettings):
        _check_pairs(settings, train, tokenizer)
        return
    from calibwrap.adapters.hf import Transformers

    adapter = Transformers(model, tokenizer)
    if isinstance(settings, RewardingDoubtSettings):
        from calibwrap.training.doubt_answers import check_lengths, judged_rows

        rows = [*judged_rows(train, settings.judge), *judged_rows(held_out, settings.judge)]
        check_lengths(adapter, rows, settings.answer_tokens, settings.max_length)
        return
    from calibwrap.training.option_batches import encoded, questions_of, trained_readout

    encoded(questions_of(train), trained_readout(settings.readout), adapter, settings.max_length)


def _check_pairs(settings: CattoSettings, train: Sequence[Any], tokenizer: Any) -> None:
    from calibwrap.training.pairs import check_lengths, preference_pairs

    pairs: Any = preference_pairs(train, seed=settings.seed, template=TEMPLATES[settings.template])
    if settings.rejected == "hardest":
        pairs = [{**row, "rejected": row["chosen"]} for row in pairs]
    check_lengths(pairs, tokenizer, settings.max_length)
