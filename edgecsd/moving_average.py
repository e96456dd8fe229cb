"""An exponential moving average of a model's weights, to validate and keep instead of the weights of the last step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """average <- decay x average + (1 - decay) x weights, after every step (Polyak and Juditsky, 1992).

    The decay is lower in the first steps, min(decay, (1 + step) / (10 + step)), so that the start is forgotten.
    Integer buffers (batch counters) are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay, self._steps = model, decay, 0
        self._average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def update(self) -> None:
        """Take in the model's weights after a step."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        with torch.no_grad():
            for name, value in self._model.state_dict().items():
                kept = self._average[name]
                if kept.is_floating_point():
                    kept.lerp_(value, 1 - decay)
                else:
                    kept.copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the model has the average's weights."""
        trained = {name: value.detach().clone() for name, value in self._model.state_dict().items()}
        self._model.load_state_dict(self._average)
        try:
            yield
        finally:
            self._model.load_state_dict(trained)

    def state_dict(self) -> dict[str, Tensor]:
        """The average and the number of steps that went into it."""
        return {**self._average, "steps": torch.tensor(self._steps)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        self._steps = int(state["steps"])
        self._average = {name: value.clone() for name, value in state.items() if name != "steps"}
