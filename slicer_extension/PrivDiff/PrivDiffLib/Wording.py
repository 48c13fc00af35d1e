"""What the panel says in plain words: of a case, of its risk, of what was measured."""

from __future__ import annotations

from slicer.i18n import tr as _

from .Cases import Case, Stage
from .privdiff_client import ClientError, Figures, Job, Measured, Model
from .Translations import errorTexts, wordOf

PRESENT = 0.5
"""From here on the reader of the bundle counts a finding as seen."""

CHANGED = 0.15
"""A smaller change of a probability is none that a person would call one."""

STEPS = ((0.6, "low"), (0.75, "moderate"), (0.9, "high"), (1.01, "very high"))
"""Linkage AUC below which the words hold; 0.5 is chance."""


def stageText(case: Case) -> str:
    """Return the state of a case for the table."""
    texts = {
        Stage.READY: _("Ready"),
        Stage.SENDING: _("Sending"),
        Stage.QUEUED: _("Waiting"),
        Stage.RUNNING: _("Redrawing"),
        Stage.FETCHING: _("Fetching"),
        Stage.TO_REVIEW: _("To review"),
        Stage.APPROVED: _("Approved"),
        Stage.REJECTED: _("Rejected"),
        Stage.PUBLISHED: _("Published"),
        Stage.HELD: _("Held"),
        Stage.FAILED: _("Failed"),
        Stage.CANCELLED: _("Cancelled"),
    }
    text = texts[case.stage]
    if case.stage is Stage.QUEUED and case.job and case.job.position:
        return _("{state}, {count} ahead").format(state=text, count=case.job.position)
    return text


def reasonText(case: Case) -> str:
    """Return why a case is where it is, or nothing."""
    told = [errorText(case.error)] if case.error is not None else []
    if case.job is not None and case.job.reason and (case.isHeld or not told):
        problem, _mark, remedy = case.job.reason.partition("; ")
        told.insert(0, sentence(problem, remedy))
    if told:
        return " ".join(told)
    if case.notice is not None:
        return errorText(case.notice)
    if case.job is not None and case.job.approvals and case.stage is Stage.TO_REVIEW:
        return _("Approved by {names}; another person must approve too.").format(
            names=", ".join(case.job.approvals)
        )
    return ""


def boxText(case: Case) -> str:
    """Return why an image cannot be checked to be sent, or nothing."""
    if case.picture:
        return _("This image came from the server's queue: its original is not here to be sent.")
    if not case.volumeID:
        return _(
            "The original was removed from the scene, so it cannot be sent again. What came back "
            "can be reviewed and published."
        )
    return ""


def errorText(error: ClientError) -> str:
    """Return what went wrong, and what to do, as sentences in the language of the application."""
    return sentence(*errorTexts(error))


def sentence(message: str, hint: str) -> str:
    """Return a problem and what to do as sentences.

    Examples
    --------
    >>> sentence("the store is full", "ask whoever runs it")
    'The store is full. Ask whoever runs it.'
    """
    parts = [part[0].upper() + part[1:].rstrip(".") + "." for part in (message, hint) if part]
    return " ".join(parts)


def etaText(seconds: float | None) -> str:
    """Return how long it will still take.

    Examples
    --------
    >>> etaText(None), etaText(4.2), etaText(200)
    ('', '5 s', '4 min')
    """
    if seconds is None:
        return ""
    if seconds < 90:
        return _("{count} s").format(count=int(seconds) + 1)
    return _("{count} min").format(count=int(seconds // 60) + 1)


def riskWord(auc: float) -> str:
    """Return a linkage AUC in words."""
    word = next(word for limit, word in STEPS if auc < limit)
    words = {
        "low": _("low"),
        "moderate": _("moderate"),
        "high": _("high"),
        "very high": _("very high"),
    }
    return words[word]


def riskText(model: Model | None, profile: str, strength: float) -> str:
    """Return the measured risk of a setting."""
    found = model.nearest_measured(profile, strength) if model else None
    if found is None:
        return _("The risk of this setting was not measured.")
    measuredAt, figures = found
    where = (
        ""
        if abs(measuredAt - strength) < 0.005
        else _(" This is the nearest measured strength, {value:.2f}.").format(value=measuredAt)
    )
    return _riskSentence(figures) + where


def _riskSentence(figures: Measured) -> str:
    interval = (
        _(" (95\u00a0%: {low:.2f} to {high:.2f})").format(
            low=figures.interval[0], high=figures.interval[1]
        )
        if len(figures.interval) == 2
        else ""
    )
    return _(
        "Measured risk of linking to the original: <b>{word}</b>, AUC {auc:.2f}{interval}; "
        "0.5 is chance, 1 is certain. Findings are read with AUC {findings:.2f}. "
        "{count} patients."
    ).format(
        word=riskWord(figures.linkage_auc),
        auc=figures.linkage_auc,
        interval=interval,
        findings=figures.findings_auc,
        count=figures.n,
    )


def linkageText(job: Job) -> str:
    """Return what was measured of this very image's likeness, in words."""
    if job.figures is None:
        return ""
    similarity = job.figures.identity_similarity
    if job.linkage_limit is None:
        return _("Likeness to the original {value:.2f} (the original itself: 1.00).").format(
            value=similarity
        )
    verdict = (
        _("It is below the limit, so the check lets it pass.")
        if similarity <= job.linkage_limit
        else _("It is above the limit: too similar to its original.")
    )
    return _(
        "Likeness to the original {value:.2f} (before: 1.00, limit {limit:.2f}). {verdict} "
        "This is a check of one image, not a promise."
    ).format(value=similarity, limit=job.linkage_limit, verdict=verdict)


def textText(figures: Figures) -> str:
    """Return what became of text in the pixels."""
    if not figures.text_boxes and not figures.markers_redrawn:
        return _("No burned-in text was found; look for yourself.")
    return _("Burned-in text: places filled: {boxes}, side markers drawn anew: {markers}.").format(
        boxes=figures.text_boxes, markers=figures.markers_redrawn
    )


def findingRows(figures: Figures) -> list[tuple[str, float, float, str, bool]]:
    """Return (finding, before, after, verdict, whether it changed), the changed ones first."""
    rows = []
    for name, before in figures.findings_before.items():
        after = figures.findings_after.get(name, 0.0)
        changed = abs(after - before) >= CHANGED or (before >= PRESENT) != (after >= PRESENT)
        rows.append((wordOf(name), before, after, _findingVerdict(before, after), changed))
    return sorted(rows, key=lambda row: (not row[4], -max(row[1], row[2])))


def findingsText(figures: Figures) -> str:
    """Return the findings of an image in a sentence."""
    rows = findingRows(figures)
    changed = [row[0] for row in rows if row[4]]
    if not rows:
        return ""
    if not changed:
        return _("All {count} findings read as before.").format(count=len(rows))
    return _("{count} of {total} findings read differently: {names}. Look there first.").format(
        count=len(changed), total=len(rows), names=", ".join(changed)
    )


def _findingVerdict(before: float, after: float) -> str:
    if before >= PRESENT and after < PRESENT:
        return _("lost")
    if before < PRESENT and after >= PRESENT:
        return _("new")
    if after - before >= CHANGED:
        return _("stronger")
    if before - after >= CHANGED:
        return _("weaker")
    return _("kept") if before >= PRESENT else _("absent")
