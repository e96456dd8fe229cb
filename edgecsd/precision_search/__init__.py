"""Which precision may an export have? From w8a8 up, until retrieval on held-out photos stays near the torch model's.

held_out.py      the photos that it is judged by
trials.py        what one recipe costs; kept line by line, so that a search resumes
attempts.py      recipes exported and measured
objectives.py    limits of loss, size and CPU time
sensitivity.py   what it costs in retrieval to compute one convolution in 8 bit
rounding.py, tuning.py   quantisation-aware distillation
results.py       what was tried, and what was chosen
search.py        the order in which recipes are tried
"""

from edgecsd.precision_search.objectives import Objectives
from edgecsd.precision_search.results import NothingFitsError, Searched, SearchResult
from edgecsd.precision_search.search import search_precision
from edgecsd.precision_search.sensitivity import LayerCost
from edgecsd.precision_search.trials import Trial

__all__ = ["LayerCost", "NothingFitsError", "Objectives", "SearchResult", "Searched", "Trial", "search_precision"]
