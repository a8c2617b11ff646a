"""Text and token ids of one GGUF file: its own tokenizer, its own chat template."""

from collections.abc import Sequence
from typing import Any

from calibwrap.adapters._llamacpp_engine import check_open, lock_of
from calibwrap.errors import CapabilityError, InputError, need
from calibwrap.questions import Chat, Prompt


class Vocabulary:
    """Reads prompts the way the model was trained to read them.

    Plain text is only text: "<|im_end|>" inside it is seven characters and more, never the control token, so that a
    question cannot end its own prompt; the BOS token is added where the file's metadata ask for it. A chat is rendered
    to one text with the model's own template, in which control tokens count, and the template alone decides about BOS.
    """

    def __init__(self, llama: Any) -> None:
        """Hold the vocabulary and the chat template of `llama`."""
        self._llama = llama
        self._lock = lock_of(llama)
        self._api = need("llama_cpp", feature="the llama.cpp adapter", extra="llama-cpp")
        self._vocab = self._api.llama_model_get_vocab(llama.model)
        self._adds_bos = bool(self._api.llama_vocab_get_add_bos(self._vocab))
        self._bos = int(self._api.llama_vocab_bos(self._vocab))
        self.size = int(llama.n_vocab())
        source = self._api.llama_model_chat_template(llama.model, None)
        self.template: str = "" if source is None else source.decode("utf-8")
        self._formatter = self._compiled() if self.template else None

    def read(self, prompt: Prompt, continuation: str = "") -> list[int]:
        """Return the ids of the prompt and what follows it, tokenised together.

        Raises:
            CapabilityError: a chat, and the file has no template.
            InputError: the template refuses the messages, or the text is not valid Unicode.
        """
        if isinstance(prompt, Chat):
            return self._tokens(self.rendered(prompt) + continuation, special=True)
        ids = self._tokens(prompt + continuation, special=False)
        return [self._bos, *ids] if self._adds_bos and self._bos >= 0 else ids

    def rendered(self, chat: Chat) -> str:
        """Return the text of a chat up to where the assistant's answer goes on; thinking is switched off."""
        if self._formatter is None:
            raise CapabilityError(
                "This GGUF file has no chat template, so that nobody knows how the model reads messages: use a plain "
                "template, such as questions.CLOZE, or a file of an instruction-tuned model."
            )
        import jinja2

        messages = [{"role": role, "content": content} for role, content in chat.messages]
        try:
            text: str = self._formatter(messages=messages, enable_thinking=False).prompt
        except (ValueError, jinja2.TemplateError) as error:
            raise InputError(f"The model's chat template refuses these messages: {error}") from error
        return text + chat.prefix

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of drawn tokens; control tokens have none, and an incomplete last character is U+FFFD."""
        return b"".join(map(self.piece, ids)).decode("utf-8", errors="replace")

    def piece(self, token: int) -> bytes:
        """Return the bytes of one token, which may be a part of a character."""
        import ctypes

        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            written = self._api.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if written >= 0:
                return buffer.raw[:written]
            size = -written

    def ends(self, token: int) -> bool:
        """Return whether the token ends a generation: EOS, EOT and their like."""
        return bool(self._api.llama_vocab_is_eog(self._vocab, token))

    def entries(self) -> list[str]:
        """Return the text of every entry as the file has it, in the order of ids."""
        with self._lock:
            check_open(self._llama)
            return [self._entry(token) for token in range(self.size)]

    def _entry(self, token: int) -> str:
        text = self._api.llama_vocab_get_text(self._vocab, token) or b""
        return str(text.decode("utf-8", errors="surrogateescape"))

    def _tokens(self, text: str, special: bool) -> list[int]:
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"A prompt must be valid Unicode text. Got a lone surrogate: {error}.") from error
        with self._lock:
            check_open(self._llama)
            return [int(token) for token in self._llama.tokenize(data, add_bos=False, special=special)]

    def _compiled(self) -> Any:
        """Return the runtime's own Jinja renderer for the file's template, named tokens included."""
        import jinja2
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        eos = int(self._api.llama_vocab_eos(self._vocab))
        names = [self._entry(token) if token >= 0 else "" for token in (eos, self._bos)]
        try:
            return Jinja2ChatFormatter(template=self.template, eos_token=names[0], bos_token=names[1])
        except jinja2.TemplateError as error:
            raise InputError(f"The file's chat template is not valid Jinja: {error}") from error
