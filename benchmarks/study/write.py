"""The study's report: tables, plots and verdicts from the recorded runs; nothing is written that was not measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from intervals import difference_of, interval_of
from plan import Claim, Question, Variant

from edgecsd.files.whole import replace_whole, write_json
from edgecsd.metrics.bootstrap import PairedDifference, bootstrap_interval
from edgecsd.report.drawing.plots import save
from edgecsd.report.run_page.study_figures import Study, StudyPlot, StudyPoint, study_figure

Records = dict[tuple[str, int], dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What the runs of one variant say: mAP over queries and seeds, with its interval, and how seeds differ."""

    variant: Variant
    ap: dict[int, np.ndarray]  # by seed, (Q,) of each query
    mean: float
    low: float
    high: float
    spread: float  # standard deviation of the mAP over seeds
    overlap: float
    cosine: float
    kept: int | None  # seeds in which a step of the training was kept; None: not recorded

    @property
    def kept_in_words(self) -> str:
        return "" if self.kept is None else f"{self.kept} of {len(self.ap)}"


def answer(variant: Variant, records: Records) -> Answer | None:
    """None if the variant was not run."""
    found = {seed: record for (key, seed), record in sorted(records.items()) if key == variant.key}
    if not found:
        return None
    ap = {seed: np.array(record["ap"]) for seed, record in found.items()}
    interval = interval_of(np.stack(list(ap.values())))
    maps = [record["mAP"] for record in found.values()]
    spread = float(np.std(maps, ddof=1)) if len(maps) > 1 else float("nan")
    overlap, cosine = (float(np.mean([each[name] for each in found.values()])) for name in ("overlap@10", "cosine"))
    plans = [record.get("head") for record in found.values()]
    kept = None if None in plans else sum(plan["trained"] > 0 for plan in plans)
    return Answer(variant, ap, interval.mean, interval.low, interval.high, spread, overlap, cosine, kept)


def against(a: Answer, b: Answer) -> PairedDifference:
    """a - b over the seeds that both have."""
    seeds = sorted(a.ap.keys() & b.ap.keys())
    return difference_of(*(np.stack([each.ap[seed] for seed in seeds]) for each in (a, b)))


def verdict(claim: Claim, difference: PairedDifference) -> str:
    """A claimed ordering against what was measured."""
    low, high = difference.low, difference.high
    if claim.within is None:
        agrees, disagrees = low > claim.margin, high < claim.margin
    else:
        agrees, disagrees = -claim.within < low and high < claim.within, high < -claim.within or low > claim.within
    return "agrees" if agrees else "**disagrees**" if disagrees else "not shown either way"


def claimed(claim: Claim) -> str:
    """The ordering in signs."""
    if claim.within is not None:
        return f"{claim.a} = {claim.b}, within {claim.within:g}"
    return f"{claim.a} > {claim.b}" + (f" by {claim.margin:g} and more" if claim.margin else "")


def signed(difference: PairedDifference) -> str:
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}], p = {difference.p_value:.4f}"


def section(question: Question, answers: dict[str, Answer], picture: str) -> list[str]:
    """Markdown of one question."""
    first = next(iter(answers.values()))
    lines = [f"## {question.title}", ""]
    if question.article:
        lines += [f"The article: {question.article}", ""]
    lines += [f"![{question.title}]({picture})", ""]
    lines += [
        "| variant | mAP [95 % interval] | sd over seeds | seeds | steps kept | overlap@10 | cosine "
        f"| against {first.variant.name} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, each in answers.items():
        difference = "" if each is first else signed(against(each, first))
        lines.append(
            f"| {name} | {each.mean:.4f} [{each.low:.4f}, {each.high:.4f}] | {each.spread:.4f} | {len(each.ap)} | "
            f"{each.kept_in_words} | {each.overlap:.3f} | {each.cosine:.3f} | {difference} |"
        )
    claims = [claim for claim in question.claims if claim.a in answers and claim.b in answers]
    if claims:
        lines += ["", "| the article's ordering | difference here | |", "|---|---|---|"]
        for claim in claims:
            shown = against(answers[claim.a], answers[claim.b])
            lines.append(f"| {claimed(claim)} | {signed(shown)} | {verdict(claim, shown)} |")
    return [*lines, ""]


def plot(question: Question, answers: dict[str, Answer], reference: float) -> StudyPlot:
    """A curve where the variants are numbers, dots elsewhere."""
    numbers = dict(zip((v.name for v in question.variants), question.numbers, strict=False))
    points = tuple(
        StudyPoint(name=name, mean=each.mean, low=each.low, high=each.high, x=numbers.get(name))
        for name, each in answers.items()
    )
    common = {"title": question.title, "points": points, "reference": reference, "reference_name": "gallery model"}
    if numbers:
        return StudyPlot(kind="line", x_label=question.x_label, y_label="mAP", log_x=True, **common)
    return StudyPlot(kind="dots", x_label="mAP", **common)


def write_study(
    questions: list[Question],
    records: Records,
    baselines: dict[str, dict[str, Any]],
    about: list[str],
    out: Path,
    environment: dict[str, Any],
) -> None:
    """study.md, study.json (for `edgecsd report --study`) and one PNG and SVG a question in `out`."""
    reference = baselines["gallery model, symmetric"]["mAP"]
    lines = ["# Study", "", *about, "", "| | mAP [95 % interval] |", "|---|---|"]
    for name, scored in baselines.items():
        interval = bootstrap_interval(np.array(scored["ap"]))
        lines.append(f"| {name} | {interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}] |")
    lines.append("")
    plots, raw = [], {}
    for question in questions:
        found = {v.name: a for v in question.variants if (a := answer(v, records)) is not None}
        if len(found) < 2:  # nothing to compare
            continue
        drawn = plot(question, found, reference)
        save(study_figure(drawn), out / "study" / question.name)
        lines += section(question, found, f"study/{question.name}.svg")
        plots.append(drawn)
        raw[question.name] = {
            name: {
                "mAP": each.mean,
                "low": each.low,
                "high": each.high,
                "seeds": len(each.ap),
                "sd": each.spread,
                "steps_kept": each.kept,
                "mAP_of_seeds": [float(ap.mean()) for ap in each.ap.values()],
            }
            for name, each in found.items()
        }
    write_json(out / "study.json", Study(schema_version=1, title="Study", plots=tuple(plots)).model_dump(mode="json"))
    write_json(out / "study-figures.json", _finite({"answers": raw, "environment": environment}))
    with replace_whole(out / "study.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    if isinstance(value, float):
        return round(value, 5) if np.isfinite(value) else None
    return value
