"""Which precision may an export have? The smallest whose retrieval on held-out photos stays near the torch model's.

trials.py        one recipe exported and measured; kept line by line, so that a search resumes
sensitivity.py   what it costs in retrieval to compute one convolution in 8 bit
search.py        the order in which recipes are tried
"""

from edgecsd.precision_search.search import SearchResult, search_precision
from edgecsd.precision_search.sensitivity import LayerCost
from edgecsd.precision_search.trials import Trial

__all__ = ["LayerCost", "SearchResult", "Trial", "search_precision"]
