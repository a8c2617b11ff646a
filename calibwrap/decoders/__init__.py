"""Decoders: ways from a prompt to an answer with a confidence."""

from calibwrap.decoders.greedy import Greedy

__all__ = ["Greedy"]
