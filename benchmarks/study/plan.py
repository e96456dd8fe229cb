"""What the study asks: each question of the article, the variants that answer it, and the orderings it claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STEPS, BATCH = 250, 128  # of the head: enough for the order of the variants, not for the last point
HEAD = {
    "epochs": 0,
    "head_steps": STEPS,
    "head_batch_size": BATCH,
    "query_model": "tf_efficientnet_lite0",
    "pooling": "average",
    "refit": False,  # the variants are told apart as well without it, in half the time
}
COLD = {"tau_q": 1.0, "tau_g": 0.01}  # unequal temperatures
# Of most losses held-out photos keep no step from the rotation that `distill` begins with, which does not tell one from
# another: their last weights do, whatever they are worth, from a start that leaves room for better and for worse.
LAST = {"select": False}
FROM_RIDGE = {"head_start": 1.0, **LAST}
ANCHORED = ("csd-kl", "csd-l2", "csd-l1", "rop", "d3still")


@dataclass(frozen=True)
class Variant:
    """One configuration: settings of `distill` beyond the common ones, and the training set it learns from."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    data: str = "same"

    @property
    def whole(self) -> dict[str, Any]:
        """All settings of `distill`. Anchors come from the gallery alone where nothing else is said."""
        settings = {**HEAD, **self.settings}
        anchored = settings.get("loss", "csd-kl") in ANCHORED and settings.get("anchors") != "codebook"
        return {"anchor_views": 0, **settings} if anchored else settings

    @property
    def key(self) -> str:
        """What the variant is made of: equal variants of several questions are run once."""
        settings = "_".join(f"{name}={value}" for name, value in sorted(self.settings.items()))
        return f"{self.data}_{settings or 'base'}".replace("/", "-")


@dataclass(frozen=True)
class Claim:
    """An ordering of the article's: A's mAP is above B's, by `margin` and more; or no farther from it than `within`.

    The article's words have no numbers: "much worse" is taken as 5 points and more, "as good" as 1 at most.
    """

    a: str
    b: str
    margin: float = 0.0
    within: float | None = None


MUCH, ALIKE = 0.05, 0.01


@dataclass(frozen=True)
class Question:
    """A comparison; the first variant is the one the others are compared with."""

    name: str
    title: str
    article: str  # what the article says, or "" where it is silent
    variants: tuple[Variant, ...]
    claims: tuple[Claim, ...] = ()  # the article's
    numbers: tuple[float, ...] = ()  # x of each variant, where it is a curve
    x_label: str = ""


BASE, RIDGE_BASE = Variant("csd-kl"), Variant("csd-kl", FROM_RIDGE)
CSD = ("csd-kl", "csd-l2", "csd-l1")
OTHERS = ("regression", "ssp", "rop", "d3still", "raml")
COUNTS = (16, 64, 256, 512, 1024, 2048)
KINDS = ("topk", "random", "fixed", "codebook")


def questions(
    most: int, mobilenet_weights: str | None, third: tuple[str, str | None] | None, has_other: bool
) -> list[Question]:
    """All questions that can be asked of the photos and weights that are there.

    most: the whole gallery, as anchors of one image.
    third: name and weights file of a third query model; None for the weights: those of an installed package.
    """
    counts = (*(k for k in COUNTS if k < most), most)
    asked = [
        Question(
            "loss",
            "Which form of the contextual loss, from a ridge regression?",
            "KL and L2 do well, L1 worst; KL is the default.",
            tuple(_loss(name) for name in CSD),
            (Claim("csd-kl", "csd-l2", within=ALIKE), Claim("csd-kl", "csd-l1"), Claim("csd-l2", "csd-l1")),
        ),
        Question(
            "terms",
            "First order, second order, or both, from a ridge regression?",
            "Both terms together serve retrieval best.",
            tuple(_loss(name, order) for name in CSD for order in ("both", "first", "second")),
            tuple(Claim(name, f"{name}, {order}") for name in CSD for order in ("first", "second")),
        ),
        Question(
            "k",
            "How many anchors?",
            "mAP rises with K and is saturated from K = 1024 on.",
            tuple(_count(k) for k in counts),
            (
                Claim("K = 1024", "K = 64"),
                Claim("K = 1024", "K = 256"),
                Claim("K = 2048", "K = 1024", within=ALIKE),
                Claim(f"K = {most}", "K = 1024", within=ALIKE),
            ),
            tuple(map(float, counts)),
            "K",
        ),
        Question(
            "anchors",
            "Which anchors?",
            "Random and fixed anchors do much worse than the nearest.",
            tuple(_kind(kind, cold) for cold in (False, True) for kind in KINDS),
            tuple(
                Claim("topk" + suffix, kind + suffix, margin=MUCH)
                for suffix in (", tau 0.1 / 0.1", ", tau 1 / 0.01")
                for kind in ("random", "fixed")
            ),
        ),
        Question(
            "pool",
            "Cached views among the anchors?",
            "",
            (BASE, *(Variant(f"{n} view{'s' * (n > 1)} too", {"anchor_views": n}) for n in (1, 4))),
        ),
        Question(
            "temperature",
            "Which temperatures?",
            "tau_g below 1, so that near anchors count more.",
            (
                BASE,
                _taus(0.05, 0.05),
                _taus(0.2, 0.2),
                _taus(0.1, 0.05),
                _taus(1.0, 0.01),
                Variant("tau 1 / 0.01, K = 1024", {**COLD, "k": 1024}),
                Variant("tau 1 / 0.01, K = 512, the last weights", {**COLD, **LAST}),
                Variant("tau 1 / 0.01, K = 1024, the last weights", {**COLD, "k": 1024, **LAST}),
            ),
        ),
        Question(
            "competitors",
            "Other label-free losses, from a ridge regression",
            "Contextual similarity beats the methods it was compared with.",
            (
                RIDGE_BASE,
                _loss("regression"),
                _loss("ssp"),
                Variant("ssp + first order", {"loss": "ssp", "first_order": 1.0, **FROM_RIDGE}),
                _loss("rop"),
                _loss("d3still"),
                _loss("raml"),
            ),
            tuple(Claim("csd-kl", other) for other in OTHERS),
        ),
        Question(
            "rotation",
            "Which loss, from the rotation that `distill` begins with?",
            "",
            (BASE, *(Variant(name, {"loss": name}) for name in (*CSD[1:], *OTHERS))),
        ),
        Question(
            "views",
            "How many cached views, how strong?",
            "",
            (
                *(_views(f"{count} view{'s' * (count != 1)}", count, "wide") for count in (0, 1, 4, 16)),
                _views("1 mild view", 1, "mild"),
                _views("4 mild views", 4, "mild"),
            ),
        ),
        Question(
            "head",
            "Which head, which start?",
            "",
            (
                BASE,
                Variant("random start", {"init": "random"}),
                *(Variant(f"ridge {strength:g} start", {"head_start": strength}) for strength in (0.01, 1.0)),
                Variant("GeM", {"pooling": "gem"}),
                Variant("GeM and average", {"pooling": "gem+average"}),
            ),
        ),
        Question(
            "way",
            "All of the way from the start, or part of it?",
            "",
            (
                BASE,
                Variant("the latest not measurably worse", {"interpolate": False}),
                Variant("the last weights", LAST),
            ),
        ),
        Question(
            "network",
            "The whole network after the head? Few photos, 16 strong views",
            "Trained is the whole network.",
            (
                _views("the head alone", 16, "wide"),
                _views("4 epochs of the network", 16, "wide", {"epochs": 4}),
                _views("4 epochs, the last weights", 16, "wide", {"epochs": 4, **LAST}),
                _views("the head alone, its last weights", 16, "wide", LAST),
            ),
            (Claim("4 epochs of the network", "the head alone"),),
        ),
    ]
    models = [Variant("tf_efficientnet_lite0", {"views": 1})]
    if mobilenet_weights:
        models.append(Variant("mobilenetv2_100", _model("mobilenetv2_100", mobilenet_weights)))
    if third:
        models.append(Variant(third[0], _model(*third)))
    if len(models) > 1:
        asked.append(
            Question("models", "Which query model?", "The framework serves several query models.", tuple(models))
        )
    if has_other:
        asked.append(
            Question(
                "domain",
                "Training photos of the gallery's kind, or of another?",
                "mAP falls when training photos and gallery differ in kind.",
                (BASE, Variant("another domain", {}, "other"), Variant("both", {}, "both")),
                (Claim("csd-kl", "another domain"),),
            )
        )
    return asked


def _model(name: str, weights: str | None) -> dict[str, Any]:
    return {"query_model": name, "views": 1} | ({"weights": weights} if weights else {})


def _loss(name: str, order: str = "both") -> Variant:
    """From a ridge regression, all of the way."""
    settings = FROM_RIDGE | ({} if name == "csd-kl" else {"loss": name})
    return Variant(*((name, settings) if order == "both" else (f"{name}, {order}", {**settings, "order": order})))


def _count(k: int) -> Variant:
    return Variant(f"K = {k}", {} if k == 512 else {"k": k})


def _kind(kind: str, cold: bool) -> Variant:
    """The last weights of both: with unequal temperatures held-out photos keep no step."""
    settings = LAST | ({} if kind == "topk" else {"anchors": kind})
    return Variant(f"{kind}, tau 1 / 0.01" if cold else f"{kind}, tau 0.1 / 0.1", settings | (COLD if cold else {}))


def _views(name: str, count: int, data: str, more: Mapping[str, Any] = {}) -> Variant:
    """As many steps for few views as for many: `distill` would end earlier."""
    return Variant(name, {"views": count, "head_passes": 10_000, **more}, data)


def _taus(tau_q: float, tau_g: float) -> Variant:
    return Variant(f"tau {tau_q:g} / {tau_g:g}", {"tau_q": tau_q, "tau_g": tau_g})
