"""matrix: which app version may talk to which index, what an update costs single queries, and the order of a roll-out.

Pairs are refused by the handshake alone; the others are measured through the actual index, on the same photos. Negative
flips (queries right before, wrong now) are Yan et al.'s, "Positive-Congruent Training", CVPR 2021. The criterion of
backward-compatible training is Shen et al.'s, "Towards Backward-Compatible Representation Learning", CVPR 2020: new
queries in the old gallery must do better than old queries in the old gallery.
"""
