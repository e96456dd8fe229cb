"""Gallery models by family, from timm's own registry, without their weights."""

from __future__ import annotations

import timm

from edgecsd.models.gallery.families import FAMILIES, GalleryFamily, gallery_facts, gallery_families


def test_every_family_is_there_and_no_model_stands_in_two() -> None:
    families = {family.name: family for family in gallery_families()}
    assert set(families) == set(FAMILIES)
    names = [name for family in families.values() for name in family.names]
    assert len(names) == len(set(names)) and set(names) <= set(timm.list_pretrained())
    assert "vit_small_patch14_dinov2.lvd142m" in families["DINOv2"].names
    assert "vit_base_patch16_siglip_224.v2_webli" in families["SigLIP 2"].names
    assert "vit_base_patch16_siglip_224.webli" in families["SigLIP"].names
    assert "vit_base_patch16_clip_224.openai" in families["CLIP"].names
    assert not any("_ft_" in name for name in names)
    assert families["DINOv2"].licences == ("apache-2.0",)


def test_facts_without_weights() -> None:
    names = ("vit_base_patch16_clip_224.openai", "vit_small_patch14_dinov2.lvd142m", "convnext_atto.d2_in1k")
    atto, small, clip = gallery_facts(GalleryFamily("F", names, ()))  # the smallest first
    assert (small.dim, small.projected, small.size, small.licence) == (384, None, 518, "apache-2.0")
    assert 21e6 < small.parameters < 23e6
    assert (clip.dim, clip.projected, clip.size) == (768, 512, 224)
    assert (atto.dim, atto.projected) == (320, None)  # 1,000 classes are no projection
