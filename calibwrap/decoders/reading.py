"""What a driver does for one request of a decoder: draw, calibrate, and read the labels that traces name."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from calibwrap.base import Adapter, Answer, Calibrator, Completion, Sampling
from calibwrap.calibrators import Chain, ConfidenceCalibrator
from calibwrap.decoders.rewording import Reworded, drawn_as, worded
from calibwrap.decoders.verdicts import verdicts
from calibwrap.errors import CalibrationWarning, CapabilityError
from calibwrap.questions import Prompt
from calibwrap.readouts._forms import listed_bytes, longest_list, scores_of_lists, surface_forms
from calibwrap.scores import OptionScores, TokenScores
from calibwrap.traces import AnswerRule, Named

NOT_CALIBRATED = "none"
"""`Answer.calibrated_by` of a confidence in which no calibrator had a part, such as a share of votes."""


def completed(
    adapter: Adapter,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    calibrator: Calibrator,
    steer: Calibrator | None = None,
) -> list[list[Completion]]:
    """Return the completions of each prompt that a decoder asked for, calibrated.

    A calibrator of level "token" maps the scores of every position; it needs, and gets, the whole vocabulary. Where
    `sampling.answer` is set, `Completion.labels` holds the label probabilities at the position where the trace names
    its answer, read from the adapter's longest list, and a calibrator of level "option" maps them. A `Reworded`
    request is asked in its own words; one with `labels` reads them at the next token, and nothing is drawn. `steer`
    acts inside the drawing; the scores that `calibrator` maps are raw all the same.

    Raises:
        CapabilityError: the backend cannot show labels in a trace, or the calibrator maps options and none are read;
            both are raised before any model call.
    """
    prompts = [worded(prompt, sampling) for prompt in prompts]
    if isinstance(sampling, Reworded) and sampling.labels:
        return verdicts(adapter, prompts, sampling.labels, calibrator)
    sampling = drawn_as(sampling)
    drawn = adapter.generate(prompts, request_of(adapter, sampling, calibrator), steer)
    return calibrated(adapter, drawn, sampling, calibrator)


def request_of(adapter: Adapter, sampling: Sampling, calibrator: Calibrator) -> Sampling:
    """Return what an adapter is asked for, so that `calibrated` finds all that a decoder's request needs.

    Raises:
        CapabilityError: as `completed`.
    """
    if sampling.answer is None and calibrator.level == "option" and calibrator.kind != "identity":
        raise CapabilityError(
            f"The calibrator '{calibrator.kind}' maps probabilities of options, and free text has none: use "
            "choose(...) with options, a decoder that reads labels, such as ConfidenceAtK, or a calibrator of level "
            "'token' or 'confidence'."
        )
    if sampling.answer is not None:
        sampling = replace(sampling, top=longest_list(adapter.provides))
    return replace(sampling, answer=None, top=None if calibrator.level == "token" else sampling.top)


def calibrated(
    adapter: Adapter, drawn: Sequence[Sequence[Completion]], sampling: Sampling, calibrator: Calibrator
) -> list[list[Completion]]:
    """Return the completions that came for `request_of(...)` as a decoder that asked for `sampling` gets them."""
    if calibrator.level == "token":
        drawn = [[replace(one, scores=calibrator(one.scores)) for one in many] for many in drawn]
    if sampling.answer is None:
        return [list(many) for many in drawn]
    return with_labels(adapter, drawn, sampling.answer, calibrator)


def signed(answer: Answer, calibrator: Calibrator) -> Answer:
    """Return an answer that says which calibrator was at work, unless its decoder has said so itself.

    A calibrator of one confidence maps the answer's confidence and bounds, whatever they were made of; the other
    options keep their proportions. An empty answer is certainly not right and stays at 0. Where the map may rise and
    fall between two bounds, what it makes of both says nothing of what lies between: the interval is then (0, 1).

    >>> from calibwrap.calibrators import Platt, Temperature
    >>> signed(Answer("A", 0.5, (0.5, 0.5)), Temperature(2.0)).calibrated_by
    'temperature'
    >>> signed(Answer("Paris", 0.9, (0.9, 0.9)), Platt(slope=0.5, intercept=0.0)).confidence.__round__(4)  # 3 : 1
    0.75
    """
    if calibrator.level == "confidence" and calibrator.kind != "identity":
        return _with_mapped_confidence(answer, calibrator)
    return replace(answer, calibrated_by=calibrator.kind) if answer.calibrated_by == "identity" else answer


def _with_mapped_confidence(answer: Answer, calibrator: Calibrator) -> Answer:
    if not answer.text:
        return replace(answer, calibrated_by=calibrator.kind)
    mapped = [float(value) for value in calibrator(np.array([answer.confidence, *answer.bounds]))]
    is_known = answer.bounds[0] == answer.bounds[1] or _is_one_way(calibrator)
    others = max(0.0, 1.0 - answer.confidence)
    factor = (1.0 - mapped[0]) / others if others else 0.0
    scaled = {text: p * factor for text, p in answer.probabilities.items()}
    if answer.text in scaled:
        scaled[answer.text] = mapped[0]
    return replace(
        answer,
        confidence=mapped[0],
        bounds=(min(mapped), max(mapped)) if is_known else (0.0, 1.0),
        probabilities=scaled,
        calibrated_by=calibrator.kind,
    )


def _is_one_way(calibrator: Calibrator) -> bool:
    """Return whether a calibrator, or each part of a chain, says that bounds map to bounds."""
    parts = calibrator.parts if isinstance(calibrator, Chain) else (calibrator,)
    return all(isinstance(part, ConfidenceCalibrator) and part.is_one_way for part in parts)


def with_labels(
    adapter: Adapter, drawn: Sequence[Sequence[Completion]], rule: AnswerRule, calibrator: Calibrator | None = None
) -> list[list[Completion]]:
    """Return the completions with `labels` filled where `rule` finds an answer, mapped by an option-level calibrator.

    The forms that count for a label are those of the label readout and the one in which the trace's own label was
    drawn, each as one token. What the list does not show widens the bounds.
    """
    every = [completion for many in drawn for completion in many]
    found = _named(adapter, every, rule)
    if any(named is not None and named.first < named.last for named in found):
        warnings.warn(
            f"Traces name their answer in several tokens, and those have no vote: choose labels of one token each in "
            f"place of {rule.labels}, such as letters.",
            CalibrationWarning,
            stacklevel=2,
        )
    whole = [index for index, named in enumerate(found) if named is not None and named.first == named.last]
    places = [(every[index].scores, named) for index in whole if (named := found[index]) is not None]
    rows = _read(adapter, places, rule) if places else None
    if rows is not None and calibrator is not None and calibrator.level == "option":
        rows = calibrator(rows)
    at = {index: row for row, index in enumerate(whole)}
    filled = iter(
        replace(one, labels=rows.take([at[index]]) if rows is not None and index in at else None)
        for index, one in enumerate(every)
    )
    return [[next(filled) for _ in many] for many in drawn]


def _named(adapter: Adapter, completions: Sequence[Completion], rule: AnswerRule) -> list[Named | None]:
    """Return where each completion names its answer; the bytes of each token are asked for once.

    One that was cut off right after a label that ends in a digit names none: "1" may have become "10", since models
    write numbers digit by digit. A label of letters counts there: they are drawn as one token, or have no vote anyway.
    """
    drawn = [[] if one.scores.chosen is None else one.scores.chosen.tolist() for one in completions]
    unique = list(dict.fromkeys(token for tokens in drawn for token in tokens))
    known = dict(zip(unique, adapter.token_bytes(unique), strict=True))
    pairs = zip(completions, drawn, strict=True)
    found = [rule.named_by([known[token] for token in tokens], one.text) for one, tokens in pairs]
    return [
        None if named is None or _is_open(one, named, rule) else named
        for one, named in zip(completions, found, strict=True)
    ]


def _is_open(completion: Completion, named: Named, rule: AnswerRule) -> bool:
    """Return whether `max_tokens` cut a completion off where its number may have gone on."""
    is_last = named.last == len(completion.scores) - 1 and not named.after
    return completion.finish == "length" and is_last and rule.labels[named.label][-1].isdigit()


def _read(adapter: Adapter, places: Sequence[tuple[TokenScores, Named]], rule: AnswerRule) -> OptionScores:
    """Return one row of label scores for each place."""
    rows = [_position(scores, named.first) for scores, named in places]
    keys = [[_forms(label, named) for label in rule.labels] for _, named in places]
    return scores_of_lists(keys, listed_bytes(adapter, rows), rows, rule.readout)


def _forms(label: str, named: Named) -> list[bytes]:
    """Return the bytes of the tokens that mean `label`: written as the drawn label was, and as the readout's forms."""
    own = named.before + label.encode() + named.after
    return list(dict.fromkeys((own, *(form.encode() for form in surface_forms(" ", label)))))


def _position(scores: TokenScores, position: int) -> TokenScores:
    """Return one position's list, with the drawn token added where it lies below the listed ones."""
    here = slice(position, position + 1)
    if scores.ids is None:
        return TokenScores(scores.logprobs[here])
    ids, logprobs, tail = scores.ids[here], scores.logprobs[here], scores.log_tail[here]
    if scores.chosen is not None and scores.chosen_logprob is not None and scores.chosen[position] not in ids:
        ids, logprobs = np.append(ids, [scores.chosen[here]], 1), np.append(logprobs, [scores.chosen_logprob[here]], 1)
        tail = None  # type: ignore[assignment]  # worked out anew
    return TokenScores(logprobs, ids=ids, log_tail=tail, log_cut=scores.log_cut[here])
