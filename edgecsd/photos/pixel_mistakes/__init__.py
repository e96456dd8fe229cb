"""Named pixel mistakes: what apps and scripts do wrong between a photo and the network, and which one explains vectors.

Each is a function of a photo and the right pixel contract, so that its cost can be measured and its traces recognised:
`diagnose_pixels` embeds photos with every mistake and names the one whose vectors are those that were found.
"""
