"""Ask the same questions in several ways and see which way the model takes to.

    python examples/own_template.py llama-cpp:model.gguf questions.jsonl --limit 100

A template is data. Here two of one's own stand beside built-in ones. Label mass is how much probability the model gave
to all labels together; where it is small, the model wanted to write something else.
"""

import argparse
import json
import warnings

import calibwrap as cw
from calibwrap import metrics
from calibwrap.errors import CalibrationWarning

PLAIN = cw.Template(body="Exam. {question}\nThe right answer is", name="exam")
LETTERS = cw.Template(
    body="{question}\n{options}\nReply with one letter.",
    option="({label}) {option}\n",
    shows_options=True,
    style="chat",
    separator="",
    name="one-letter",
)
READOUTS = ("continuation:token:cloze", cw.Continuation("token", PLAIN), "label:letter-chat", cw.Label(LETTERS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("questions", help="a question file with answers, or the name of a published set such as sciq")
    parser.add_argument("--limit", type=int, help="take this many questions only")
    parser.add_argument("--set", type=json.loads, default={}, help='options for the runtime, such as {"n_threads": 1}')
    chosen = parser.parse_args()

    questions = cw.load_questions(chosen.questions, limit=chosen.limit, seed=0 if chosen.limit else None)
    answers = [question.answer for question in questions]
    warnings.simplefilter("ignore", CalibrationWarning)  # what it would say is in the table
    print(f"{'readout':40} accuracy  confidence   ECE  label mass")
    with cw.wrap(chosen.model, **chosen.set) as lm:
        for readout in READOUTS:
            scores = lm.scores(questions, readout=readout)
            correct = scores.choice == answers
            error = metrics.ece(scores.confidence, correct)
            figures = f"{correct.mean():8.2f}  {scores.confidence.mean():10.2f}  {error:.2f}"
            print(f"{scores.readout:40} {figures}  {scores.label_mass.mean():10.2f}")


if __name__ == "__main__":
    main()
