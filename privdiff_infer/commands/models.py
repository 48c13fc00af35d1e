"""`privdiff models` and `privdiff benchmark`: which bundles there are, and how fast."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from privdiff_infer.commands.options import SAMPLE, Device, Json, Model, PrecisionOption, Threads
from privdiff_infer.sources import find_files
from privdiff_infer.vocabulary import DEFAULT_BUNDLE, Precision

if TYPE_CHECKING:
    from privdiff_infer.model.bundle import BundleInfo


def models(as_json: Json = False) -> None:
    """List the embedded bundles and compare every file with its hash."""
    from privdiff_infer.model.bundle import list_bundles, verify_bundle

    bundles = [verify_bundle(info.path) for info in list_bundles()]
    if as_json:
        typer.echo(json.dumps([_bundle_record(info) for info in bundles], indent=2))
        return
    for info in bundles:
        typer.echo(
            f"{info.name} {info.version}  {info.size_bytes / 1e6:.1f} MB  {info.licence}  "
            f"{len(info.metadata.files)} files match their hashes"
        )
        for profile, point in info.metadata.operating_points.items():
            typer.echo(f"  {profile.value:10} strength {point.strength:.2f}")
        typer.echo(f"  {info.path}\n  {info.metadata.summary}\n  metadata {info.sha256}")


def benchmark(
    model: Model = DEFAULT_BUNDLE,
    repeat: Annotated[int, typer.Option(min=1, help="Timed calls of each kind.")] = 3,
    soak: Annotated[
        int, typer.Option(min=0, help="Images to redraw in a row to watch the memory.")
    ] = 0,
    threads: Threads = 1,
    device: Device = "auto",
    precision: PrecisionOption = Precision.FLOAT32,
    as_json: Json = False,
) -> None:
    """Time every profile of a bundle, and the paper's own sampler, on this machine."""
    from privdiff_infer.benchmark import BenchmarkOptions, format_table, run_benchmark
    from privdiff_infer.model.bundle import find_bundle

    options = BenchmarkOptions(
        repeat=repeat, soak=soak, device=device, precision=precision, threads=threads
    )
    result = run_benchmark(find_bundle(model), find_files(str(SAMPLE)), options)
    typer.echo(json.dumps(result.to_record(), indent=2) if as_json else format_table(result))


def _bundle_record(info: BundleInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "version": info.version,
        "path": str(info.path),
        "sha256": info.sha256,
        "licence": info.licence,
        "size_bytes": info.size_bytes,
        "metadata": info.metadata.model_dump(mode="json"),
    }
