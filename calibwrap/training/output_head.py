"""A causal model's output head, read only at the tokens that are wanted: no logits of the whole vocabulary are kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from calibwrap.errors import CapabilityError
from calibwrap.training.catto import chunks

_SCALES = ("logit_scale", "output_multiplier", "lm_head_multiplier")
"""Names under which configurations keep a factor of all logits."""
_CLOSE = 2e-2
"""How far, relative to the largest logit, two ways to the same logits may differ: the rounding of 16-bit models."""


@dataclass(frozen=True)
class OutputHead:
    """What stands between a causal model's last hidden states and its logits."""

    model: Any
    """A Transformers causal model, without PEFT around it."""
    scale: float
    """Factor of all logits."""
    softcap: float | None
    """Logits are bent into (-softcap, softcap) where there is one."""

    @classmethod
    def of(cls, model: Any) -> "OutputHead":
        """Return the head of a Transformers model, checked once against the model's own logits.

        Raises:
            CapabilityError: the model does something else to its logits.
        """
        settings = model.config.get_text_config().to_dict()
        factors = [settings[name] for name in _SCALES if settings.get(name) is not None]
        if settings.get("logits_scaling") is not None:
            divided = settings["logits_scaling"]
            factors.append(divided if settings["model_type"] == "hyperclovax" else 1.0 / divided)
        head = cls(model, float(factors[0]) if factors else 1.0, settings.get("final_logit_softcapping"))
        head._check()
        return head

    @contextmanager
    def watched(self) -> Iterator[list[Tensor]]:
        """Yield a list that receives the last hidden states (B, T, D) of every call made meanwhile."""
        seen: list[Tensor] = []
        handle = self.model.base_model.register_forward_hook(
            lambda module, inputs, outputs: seen.append(outputs.last_hidden_state)
        )
        try:
            yield seen
        finally:
            handle.remove()

    def best_others(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return for each of n hidden states (n, D) the most probable token that is not its target, (n,) ids.

        One product with the head, a few rows at a time; no gradient, nothing kept.
        """
        weight, bias = self._weights()
        found = []
        with torch.no_grad():
            for part in chunks(len(targets), len(weight)):
                logits = torch.nn.functional.linear(hidden[part].to(weight.dtype), weight, bias)
                found.append(logits.scatter_(1, targets[part, None], -torch.inf).argmax(dim=1))
        return torch.cat(found)

    def logits_at(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Return the logits (n,), in 32 bits and differentiable, of one token each at n hidden states (n, D)."""
        weight, bias = self._weights()
        rows = torch.nn.functional.embedding(ids, weight, sparse=True)  # no gradient as large as the head for few rows
        logits = (hidden.float() * rows.float()).sum(dim=1)
        logits = (logits if bias is None else logits + bias[ids].float()) * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def _weights(self) -> tuple[Tensor, Tensor | None]:
        layer = self.model.get_output_embeddings()
        return layer.weight, layer.bias

    def _check(self) -> None:
        """Compare some logits with those of the model's own forward, after a few tokens (one may have no embedding)."""
        training = self.model.training
        ids = torch.arange(4, device=self._weights()[0].device)[None] % len(self._weights()[0])
        self.model.eval()
        with torch.no_grad(), self.watched() as seen:
            theirs = self.model(input_ids=ids, use_cache=False).logits[0, -1].float()
        self.model.train(training)
        some = torch.arange(0, len(theirs), max(1, len(theirs) // 64), device=ids.device)
        theirs, ours = theirs[some], self.logits_at(seen[0][0, -1:].expand(len(some), -1), some)
        if not torch.allclose(ours, theirs, rtol=0.0, atol=_CLOSE * max(1.0, float(theirs.abs().max()))):
            raise CapabilityError(
                f"CATTO reads single logits from the output head, and those of {type(self.model).__name__} are not its "
                "hidden states times the head, scaled or soft-capped as its configuration says: use weight 0."
            )
