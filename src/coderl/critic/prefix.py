"""The critic of online learning: what will become of a program, told at each of its prefixes, the empty one too."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from coderl.critic.columns import outcome_column
from coderl.models.lm import Batch, LanguageModel
from coderl.types import Outcome


class PrefixCritic(nn.Module):
    """A linear layer from states to the four outcomes: on the actor's own states, or on those of a network of its own.

    It starts at zero, so that it begins with the same probability for every outcome.

    Source: CodeRL Eq. 10 and 11. Deviation: no pooling, for a causal state has read the whole prefix, and the empty
        prefix has a value too, which is a baseline that costs no greedy program.
    """

    def __init__(self, hidden_size: int, network: LanguageModel | None = None):
        super().__init__()
        self.network = network
        self.head = nn.Linear(hidden_size, len(Outcome))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, actor_states: Float[Tensor, "B one_more H"], batch: Batch) -> Float[Tensor, "B one_more U"]:
        """Return the outcome logits at the prefixes 0..T of each program.

        Args:
            actor_states: `Reading.prefix_states` of the actor; not used where the critic has a network of its own.
            batch: the programs.
        """
        states = actor_states if self.network is None else self.network.read(batch).prefix_states
        return self.head(states.to(self.head.weight.dtype)).float()


def outcome_row(outcome: Outcome) -> tuple[float, ...]:
    """Return one at the outcome's column, zero elsewhere."""
    column = outcome_column(outcome, len(Outcome))
    return tuple(float(i == column) for i in range(len(Outcome)))


def expected_returns(probs: Sequence[Sequence[float]], outcome_returns: Sequence[float]) -> list[float]:
    """Return V_t = sum_u p_t(u) r(u) for each row of outcome probabilities."""
    return [sum(p * r for p, r in zip(row, outcome_returns, strict=True)) for row in probs]
