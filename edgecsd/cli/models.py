"""edgecsd models"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecsd.cli.console import finish, table
from edgecsd.cli.numbers import size_from_text
from edgecsd.cli.options import Json, choices
from edgecsd.errors import BadInputError

if TYPE_CHECKING:
    from edgecsd.models.catalogue import QueryNetwork
    from edgecsd.models.gallery.families import GalleryFacts, GalleryFamily

TARGETS = ("onnx", "tflite", "coreml")  # that the catalogue was measured on
FLOATS = ("fp32", "fp16")
PRECISIONS = (*FLOATS, "w8a8")
SHORT = 100  # figures from here on are shown without decimals
MEGA, GIGA = 1e6, 1e9


def command(
    word: Annotated[str, typer.Argument(help="Only those whose name or family holds this, such as mobilenet.")] = "",
    fits: Annotated[str | None, typer.Option(help="Most size of the smallest file, such as 10MB.")] = None,
    max_ms: Annotated[
        float | None, typer.Option(help="Most milliseconds of the fastest file, on the host named.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Only those that work on this target.", **choices(TARGETS))] = None,
    gallery: Annotated[
        bool, typer.Option("--gallery", help="Families of gallery models in timm; with a word, their models.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Query networks that were exported and measured, with sizes, times, targets and licences; or gallery models.

    Example: edgecsd models --fits 10MB --max-ms 20 --target tflite
    """
    if gallery:
        if fits is not None or max_ms is not None or target is not None:
            raise BadInputError("`gallery` lists models that no phone runs: leave out `fits`, `max_ms` and `target`")
        _gallery(word, as_json)
        return
    from edgecsd.models.catalogue import catalogue, fitting
    from edgecsd.targets.artifact import parse_target

    most_bytes = None if fits is None else size_from_text(fits, "`fits`")[0]
    if fits is not None and most_bytes is None:
        raise BadInputError(f"`fits` {fits}: a size such as 10MB or 900kB")
    chosen = None if target is None else str(parse_target(target))
    listed = catalogue()
    found = fitting(listed.networks, word=word, target=chosen, most_bytes=most_bytes, most_ms=max_ms)
    if not found:
        raise BadInputError(_none_found(word))
    document = listed.model_dump(mode="json", exclude={"networks"})
    following = f"edgecsd distill PHOTOS --gallery gallery.store --query-model {found[0].name} --out run"
    finish(
        as_json,
        {**document, "networks": [network.model_dump(mode="json") for network in found]},
        text=f"{_networks(found)}\n\n"
        "Mpar, GMAC: million parameters, billion multiply-adds. px: input side.\n"
        "dim: channels of the feature map. MB: smallest TFLite file, head of 128.\n"
        "works on ONNX, TFLite and Core ML: all precisions, float only, or some (--json).\n"
        f"ms: CPU time of the fastest, one thread of {listed.host}, not a phone.",
        following=following,
    )


def _networks(found: list[QueryNetwork]) -> str:
    header = ("network", "Mpar", "GMAC", "px", "dim", "MB", "ms", "works", "licence")
    rows = [
        (
            network.name,
            f"{network.parameters / MEGA:.1f}",
            f"{network.multiply_adds / GIGA:.2f}",
            str(network.size),
            str(network.width),
            _figure(network.smallest_bytes, 1 / MEGA),
            _figure(network.fastest_ms, 1),
            _working(network),
            network.licence.removesuffix("-license"),
        )
        for network in found
    ]
    return table(header, rows)


def _figure(value: float | None, scale: float) -> str:
    if value is None:
        return "-"
    return f"{value * scale:.1f}" if value * scale < SHORT else f"{value * scale:.0f}"


def _working(network: QueryNetwork) -> str:
    """ "all": every precision on every target; "float": fp32 and fp16 there; else "some", which --json spells out."""
    sets = [set(network.works.get(target, ())) for target in TARGETS]
    if all(each >= set(PRECISIONS) for each in sets):
        return "all"
    return "float" if all(each >= set(FLOATS) for each in sets) else "some"


def _none_found(word: str) -> str:
    from edgecsd.models.catalogue import catalogue, fitting, nearest_names

    networks = catalogue().networks
    if not word or fitting(networks, word=word):
        return "no network is within these limits: raise `fits` or `max_ms`, or choose another `target`"
    near = ", ".join(nearest_names(word, [network.name for network in networks]))
    return f"no network in the list is like {word!r}" + (f"; nearest: {near}" if near else "; give no word to see all")


def _gallery(word: str, as_json: bool) -> None:
    from edgecsd.models.catalogue import matches
    from edgecsd.models.gallery.families import gallery_facts, gallery_families

    families = gallery_families()
    if not word:
        finish(
            as_json,
            {"families": [asdict(family) for family in families]},
            text=table(("family", "models", "licences"), [_family(family) for family in families]),
            following="edgecsd models --gallery dinov2",
        )
        return
    chosen = [family for family in families if matches(word, family.name)]
    if not chosen:
        raise BadInputError(
            f"no family of gallery models is like {word!r}; there are: {', '.join(family.name for family in families)}"
        )
    facts = [each for family in chosen for each in gallery_facts(family)]
    finish(
        as_json,
        {"models": [asdict(each) for each in facts]},
        text=table(("model", "parameters", "dim", "projected", "px", "licence"), [_model(each) for each in facts]),
        following=f"edgecsd extract PHOTOS --gallery-model timm:{facts[0].name} --out gallery.store",
    )


def _family(family: GalleryFamily) -> tuple[str, ...]:
    return family.name, str(len(family.names)), ", ".join(family.licences)


def _model(facts: GalleryFacts) -> tuple[Any, ...]:
    parameters, projected = f"{facts.parameters / MEGA:.0f}M", str(facts.projected or "-")
    return facts.name, parameters, str(facts.dim), projected, str(facts.size), facts.licence
