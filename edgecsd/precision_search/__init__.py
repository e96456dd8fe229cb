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
