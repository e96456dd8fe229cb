"""What a request is refused with: a status and one JSON body, the same shape for every refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Refusal(Exception):
    """A request that is not answered. error: its kind, message: what was wrong, what_to_do: what helps."""

    def __init__(
        self, status: int, error: str, message: str, what_to_do: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.error, self.message, self.what_to_do = status, error, message, what_to_do
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"error": self.error, "message": self.message, "what_to_do": self.what_to_do}
