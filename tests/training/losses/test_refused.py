"""What edgecsd.training.losses says without torch: the orders, and the methods that are refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgecsd.training.choices import REFUSED, Order


@pytest.mark.parametrize("name", ["hvs", "lce", "bct", "aff", "ugd"])
def test_each_refusal_says_what_is_missing_and_where_it_comes_from(name: str) -> None:
    reason = REFUSED[name]
    assert reason.startswith("needs labelled images")
    assert "classifier" in reason
    assert any(year in reason for year in ("2020", "2021", "2023", "2025"))


def test_refusals_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        REFUSED["csd-kl"] = "no"  # type: ignore[index]


def test_orders_choose_entries() -> None:
    row = ["own", "near", "far"]
    assert row[Order.BOTH.entries] == row
    assert row[Order("first").entries] == ["own"]
    assert row[Order("second").entries] == ["near", "far"]


def test_no_torch_is_loaded() -> None:
    program = "import sys, edgecsd.training.losses; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
