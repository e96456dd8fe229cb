"""README.md of a golden pack: what an app team does with it, and what mistakes cost."""

from __future__ import annotations

from edgecsd.golden.costs import Costs
from edgecsd.golden.pack import GoldenPack
from edgecsd.photos.contract import PIXEL_STEPS


def read_me(pack: GoldenPack) -> str:
    limits, metadata = pack.tolerances, pack.artifact.metadata
    size, contract = metadata.preprocess.size, metadata.preprocess
    crop = f", the centre {contract.crop_pct:g} of the shorter side" if contract.resize == "shorter-side" else ""
    lines = [
        f"# Golden pack of {pack.artifact.name}",
        "",
        f"An app that passes computes what this file must give: SHA-256 `{pack.artifact.sha256}`, embedding space "
        f"`{pack.fingerprint}`.",
        "",
        "- Copy this folder into the resources of the app's tests, and the file of your language from `selftest/` into "
        "the tests.",
        f"- Implement `preprocess`: encoded photo -> {size} x {size} x 3 bytes, RGB, rows from the top, 0 to 255. "
        f"Decoded: {PIXEL_STEPS.decoding}.",
        f"- Resize as `{contract.resize}`{crop}, {contract.interpolation} with antialias. The file normalises by "
        "itself.",
        f"- Implement `embed`: those bytes through the file -> {metadata.dim} numbers of length 1.",
        "- `decode` and `search` may be left out; with them the self-test tells more.",
        "- Run it on every device class. Each stage that fails names its likely cause, by what known mistakes give.",
        f"- Tolerances: of 255 levels {limits.tensor_mean:g} in the mean and {limits.tensor_max} at most, cosine "
        f"{limits.cosine:g} from the pack's tensor and {limits.end_to_end_cosine:g} from the photo, overlap@{pack.k} "
        f"{limits.overlap:g}.",
        "- `tensors/` are raw uint8, `embeddings/` raw little-endian float32.",
        "",
        "| photo | pixels, upright | orientation | why |",
        "|---|---|---|---|",
        *(f"| {i.photo} | {i.width} x {i.height} | {i.orientation} | {i.note} |" for i in pack.items),
        "",
    ]
    if pack.costs is not None:
        lines += ["## What mistakes cost", "", cost_words(pack.costs), "", *cost_table(pack.costs), ""]
    return "\n".join(lines)


def cost_words(costs: Costs) -> str:
    return (
        f"Points lost of 100, over {costs.photos} photos: overlap@{costs.k} and recall@1 of this file's results "
        "against its own with right pixels, with 95 % intervals. Photos are taken to be stored sideways where the "
        "orientation is ignored."
    )


def cost_table(costs: Costs) -> list[str]:
    rows = [
        f"| {cost.name} | {cost.overlap_lost:.1f}{_ends(cost.overlap_interval)} "
        f"| {cost.recall_lost:.1f}{_ends(cost.recall_interval)} | {cost.changed:.0%} |"
        for cost in costs.mistakes
    ]
    return [
        f"| mistake | overlap@{costs.k} lost | recall@1 lost | photos that it changes |",
        "|---|---|---|---|",
        *rows,
    ]


def _ends(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.1f}, {interval[1]:.1f}]"
