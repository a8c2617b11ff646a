"""Calibrate a model without any right answer, after a pre-trained reference model (DACA).

    python examples/calibrate_without_labels.py hf:INSTRUCT_FOLDER hf:BASE_FOLDER questions.jsonl calibrator.json

Both models are RUNTIME:MODEL, on any two runtimes. The best reference is the model's own version before instruction
tuning. Answers in the file are not read.
"""

import argparse

import calibwrap as cw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("reference")
    parser.add_argument("questions", help="a question file, or the name of a published set such as sciq")
    parser.add_argument("out", help="file for the calibrator")
    parser.add_argument("--limit", type=int, help="take this many questions only")
    chosen = parser.parse_args()

    questions = cw.load_questions(chosen.questions, limit=chosen.limit, seed=0 if chosen.limit else None)
    with cw.wrap(chosen.model) as lm, cw.wrap(chosen.reference) as reference:
        fitted = lm.fit(questions, method="daca", reference=reference)
        fitted.save(chosen.out)
        report = fitted.calibrator.report
        low, high = report.interval
        print(f"The models agree on {report.rows_used} of {report.rows} questions.")
        print(f"Temperature {fitted.calibrator.value:.2f} (95 % interval {low:.2f} to {high:.2f}).")
        print(*report.notes, sep="\n")
        before, after = lm.choose_batch(questions[:3]), fitted.choose_batch(questions[:3])
        for question, one, other in zip(questions, before, after, strict=False):
            print(f"{question.prompt}\n  {one.text}: {one.confidence:.0%} before, {other.confidence:.0%} after")


if __name__ == "__main__":
    main()
