"""The side of the tokenizer that adapters around Transformers' tokenizers share: special tokens exactly once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from calibwrap.adapters._shared import split_joint
from calibwrap.adapters._vocabulary_hash import hash_vocabulary
from calibwrap.errors import CapabilityError, InputError
from calibwrap.questions import Chat, Prompt


@dataclass(frozen=True)
class Reader:
    """How a tokenizer reads prompts. A continuation is always tokenised together with its prompt.

    Plain text gets the special tokens that the tokenizer itself puts in front, once; what it would put behind (an end
    token) is left away, since every text here is to be gone on from. A chat template writes its own special tokens,
    so none are added to its text.
    """

    tokenizer: Any
    """A tokenizer of Transformers."""
    leading: tuple[int, ...] = field(init=False)
    """Special tokens that the tokenizer puts in front of plain text."""

    def __post_init__(self) -> None:
        """Find out by one comparison which special tokens come first."""
        object.__setattr__(self, "leading", _leading_specials(self.tokenizer))

    @property
    def template(self) -> str:
        """The chat template; empty when there is none."""
        if not self.tokenizer.chat_template:
            return ""
        return str(self.tokenizer.get_chat_template())

    def read(self, prompt: Prompt, continuations: Sequence[str] = ()) -> tuple[list[int], list[list[int]]]:
        """Return the ids of the prompt alone, and of the prompt with each continuation.

        Raises:
            InputError: text that is not valid Unicode, or messages that the chat template refuses.
            CapabilityError: chat messages, and the tokenizer has no chat template.
        """
        text = self._render(prompt) if isinstance(prompt, Chat) else prompt
        texts = [text, *(text + continuation for continuation in continuations)]
        for one in texts:
            check_unicode(one)
        first, *joints = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        leading = list(self.leading)
        if isinstance(prompt, Chat) or first[: len(leading)] == leading:
            leading = []
        return leading + first, [leading + joint for joint in joints]

    def split(self, prompt: Prompt, continuations: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Return the ids that the prompt shares with all continuations, and what each continuation adds to them.

        Raises:
            InputError: as `read`, or nothing is shared.
        """
        prompt_ids, joints = self.read(prompt, continuations)
        shared = split_joint(prompt_ids, joints)
        return joints[0][:shared], [joint[shared:] for joint in joints]

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` without special tokens, nothing tidied up."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def hash(self) -> str:
        """Return a hash of the real tokens with their ids; rows that pad a model's vocabulary have none."""
        return hash_vocabulary((index, token) for token, index in self.tokenizer.get_vocab().items())

    def _render(self, chat: Chat) -> str:
        from jinja2.exceptions import TemplateError

        template = self.template
        if not template:
            raise CapabilityError(
                "This model's tokenizer has no chat template, and chat messages came: use a plain template, such as "
                "questions.LETTER or questions.CLOZE, or set tokenizer.chat_template."
            )
        messages = [{"role": role, "content": content} for role, content in chat.messages]
        options = {"enable_thinking": False} if "enable_thinking" in template else {}
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)
        except TemplateError as error:
            raise InputError(
                f"The model's chat template refuses the messages with roles {[role for role, _ in chat.messages]}: "
                f"{error}. Use the roles that it knows."
            ) from error
        return str(text) + chat.prefix


def check_unicode(text: str) -> None:
    """Return nothing when `text` can be written as UTF-8.

    Raises:
        InputError: half of a surrogate pair is inside.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"Expected text that is valid Unicode. Got the lone surrogate {text[error.start]!r} at character "
            f"{error.start}: decode the source with its right encoding."
        ) from error


def _leading_specials(tokenizer: Any) -> tuple[int, ...]:
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start])
    return ()
