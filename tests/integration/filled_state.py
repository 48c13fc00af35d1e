"""A state folder with jobs that were redrawn by a real run, for a server that is started on it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from monailabel_app.lib.jobs.job import Job, JobOptions, NewJob, decode_source
from monailabel_app.lib.jobs.states import OF_STATUS
from monailabel_app.lib.server import Server
from monailabel_app.lib.settings import ServerSettings
from privdiff_infer.anonymizer import AnonymizerOptions
from privdiff_infer.file_formats import OutputFormat
from privdiff_infer.run import Run, RunOptions
from privdiff_infer.vocabulary import Profile


def fill(
    settings: ServerSettings,
    images: Sequence[Path],
    bundle: Path,
    *,
    submitter: str = "tech",
    profile: Profile = Profile.FAST,
) -> list[Job]:
    """Add one finished job per image, redrawn in this process; the queue must be empty."""
    server = Server.open(settings)
    options = JobOptions(profile=profile, output_format=OutputFormat.DICOM)
    try:
        for image in images:
            server.jobs.add(NewJob(image, submitter, options, image=image.stem, batch="clinic"))
        return [_redrawn(server, bundle) for _ in images]
    finally:
        server.jobs.close()


def _redrawn(server: Server, bundle: Path) -> Job:
    job = server.jobs.take()
    assert job is not None
    chosen = job.chosen
    options = RunOptions(
        out=server.folder.job(job.id).root,
        bundle=bundle,
        anonymizer=AnonymizerOptions(profile=chosen.profile, device="cpu", threads=1),
        output_format=chosen.output_format,
        seed=job.sequence,
    )
    with Run(options) as run:
        (outcome,) = run.outcomes([decode_source(job.source)])
        run.finish()
    row = outcome.row
    return server.jobs.move(
        job.id,
        OF_STATUS[row.status],
        finished=time.time(),
        output=row.output,
        sha256=row.sha256,
        reason=outcome.public_reason,
        figures=asdict(outcome.figures) if outcome.figures else None,
        model=run.bundle.name,
        model_version=run.bundle.version,
        model_sha256=run.bundle.sha256,
        linkage_limit=run.bundle.metadata.gates.linkage_similarity,
    )
