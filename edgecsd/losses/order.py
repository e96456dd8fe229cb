"""Which terms of a contextual loss count: the image's own entry, its neighbours, or both. Free of torch."""

from __future__ import annotations

from enum import StrEnum


class Order(StrEnum):
    """The terms of csd_kl, csd_l2 and csd_l1, as section 3.3 of their paper splits them."""

    BOTH = "both"
    FIRST = "first"  # the entry of g itself: q stays near g
    SECOND = "second"  # the K neighbours: q sees them as g does

    @property
    def entries(self) -> slice:
        """The columns of a (B, K + 1) matrix of similarities that this order uses in the distance losses."""
        return {Order.BOTH: slice(None), Order.FIRST: slice(0, 1), Order.SECOND: slice(1, None)}[self]
