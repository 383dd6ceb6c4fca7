"""From a scan to the content of its page."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

import lossbuf
from lossbuf.report import PageContent, thumbnail
from lossbuf.scan.run import Scan


def page_content(result: Scan, source: Path) -> PageContent:
    """What ``report.html`` shows."""
    data, settings, verdict = result.data, result.settings, result.verdict
    parameters = sum(parameter.numel() for parameter in result.network.parameters())
    training = settings.training(data)
    facts = [
        ("Source", str(source)),
        ("Rows", f"{len(data):,} of {len(data.class_names):,} classes, {len(data.skipped):,} skipped"),
        ("Samples", _shape(data.x.shape[1:], data.has_images)),
        ("Network", f"{settings.network}, {parameters:,} parameters"),
        ("Training", f"{settings.epochs} epochs, batches of {training.batch_size}, seed {settings.seed}"),
        ("Time", f"{result.seconds:.0f} s on {training.torch_device()}"),
        ("Cut", _cut(result)),
        ("Versions", f"lossbuf {lossbuf.__version__}, torch {torch.__version__}, Python {platform.python_version()}"),
    ]
    if verdict.planted is not None:
        found = f"{verdict.planted.found:.0%} of {len(verdict.planted.rows)} found"
        facts.append(("Labels planted wrong", found))
    return PageContent(
        title=f"Labels of {source.resolve().name}",
        class_names=data.class_names,
        table=result.table,
        noise_rate=verdict.noise_rate,
        noise_rate_interval=verdict.noise_rate_interval,
        noise_rate_given=result.settings.noise_rate is not None,
        threshold=verdict.cut.threshold,
        transition=verdict.transition,
        thumbnail=(lambda row: thumbnail(data.picture(row))) if data.has_images else None,
        facts=facts,
        skipped=data.skipped,
        doubts=[*data.notes, *result.doubts],
    )


def _shape(shape: tuple[int, ...], images: bool) -> str:
    if not images:
        return f"{shape[0]} features"
    channels, height, width = shape
    return f"images of {height}x{width} pixels, {'grey' if channels == 1 else f'{channels} channels'}"


def _cut(result: Scan) -> str:
    settings = result.settings
    if settings.noise_rate is not None:
        return f"the worst {settings.noise_rate:.1%} of the rows, as given"
    if settings.max_fdr is not None:
        return f"as many rows as keep the expected share of false alarms below {settings.max_fdr:.1%}"
    if settings.top is not None:
        return f"the {settings.top:,} worst rows, as given"
    if result.callback.posterior is not None and result.callback.posterior.dropping:
        return "where the expected F1 is highest"
    return "as many rows as labels are estimated to be wrong"
