"""One hash for one vocabulary, whichever file format and runtime it comes from."""

from collections.abc import Iterable

from calibwrap.adapters._shared import hash_texts

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How SentencePiece writes a space."""


def hash_vocabulary(tokens: Iterable[tuple[int, str]]) -> str:
    r"""Return a hash of (id, token) pairs that does not depend on how a file format writes them.

    GGUF files hold the spaces of added tokens as spaces, where Transformers has SentencePiece's mark; and they fill a
    vocabulary up with "[PADn]" at id n, where Transformers has nothing. Neither makes another tokenizer.

    >>> in_gguf = [(0, " a"), (1, "b"), (2, "[PAD2]")]
    >>> hash_vocabulary(in_gguf) == hash_vocabulary([(1, "b"), (0, "\u2581a")])
    True
    """
    real = sorted((index, token) for index, token in tokens if token != f"[PAD{index}]")
    return hash_texts(f"{index} {token.replace(_SPACE, ' ')}" for index, token in real)
