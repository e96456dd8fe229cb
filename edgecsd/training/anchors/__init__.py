"""Anchors: for each training image the gallery vectors that its similarity is measured against."""
