"""Calibrate a model behind an API without any right answer, after a base model on this machine (DACA).

    python examples/daca_on_an_api.py MODEL questions.jsonl calibrator.json --base-url http://127.0.0.1:8000/v1

Without --base-url it is OpenAI's own API, with the key in OPENAI_API_KEY. Both models answer with the letter of an
option, so their tokenizers may differ. The reference is any base model, by default the packaged Gemma 3 270M; the
larger and the more like the API model, the better. Answers in the file are not read. What the API answered is kept
beside the calibrator, so that a second run asks for nothing.
"""

import argparse

import calibwrap as cw
from calibwrap.data import packaged_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of the model at the server")
    parser.add_argument("questions", help="a question file, or the name of a published set such as sciq")
    parser.add_argument("out", help="file for the calibrator")
    parser.add_argument("--base-url", help="address of the server, ending in /v1")
    parser.add_argument("--reference", help="base model, RUNTIME:MODEL")
    parser.add_argument("--limit", type=int, help="take this many questions only")
    parser.add_argument("--max-requests", type=int, help="stop before asking the API more often than this")
    chosen = parser.parse_args()

    questions = cw.load_questions(chosen.questions, limit=chosen.limit, seed=0 if chosen.limit else None)
    api = {"base_url": chosen.base_url, "cache": f"{chosen.out}.answers.sqlite", "max_requests": chosen.max_requests}
    reference = chosen.reference or f"llama-cpp:{packaged_model('gemma-3-270m')}"
    with cw.wrap(f"openai:{chosen.model}", **api) as lm, cw.wrap(reference) as base:
        fitted = lm.fit(
            questions, method="daca", readout="label:letter-chat", reference=base, reference_readout="label:letter"
        )
        fitted.save(chosen.out)
        report = fitted.calibrator.report
        print(f"The models agree on {report.rows_used} of {report.rows} questions.")
        print(f"Temperature {fitted.calibrator.value:.2f}.", *report.notes, sep="\n")
        raw = fitted.with_calibrator(cw.Identity())
        for question in questions[:3]:
            before, after = raw.choose_batch([question])[0], fitted.choose_batch([question])[0]
            low, high = after.bounds  # they differ by what the API's list may hide
            print(f"{question.prompt}\n  {after.text}: {before.confidence:.0%} before, {after.confidence:.0%} after")
            print(f"  (for certain between {low:.2%} and {high:.2%})")
        print(f"Spent: {dict(lm.adapter.usage())}")


if __name__ == "__main__":
    main()
