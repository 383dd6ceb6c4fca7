"""From what was found to one HTML page that needs nothing else and runs nothing but its own script."""

from __future__ import annotations

import base64
import hashlib
import os
from importlib.resources import files
from typing import Any

import numpy as np

from lossbuf.files import write_whole
from lossbuf.report import words
from lossbuf.report.classes import MAX_HEAT, class_counts, heat_map, largest_flows
from lossbuf.report.content import PageContent, numbers, text_of
from lossbuf.report.histogram import histogram
from lossbuf.report.suspects import payload

__all__ = ["PageContent", "page", "save_page"]

MAX_SKIPPED = 1000
"""Skipped files that are listed."""

_SCRIPTS = ("decisions.js", "gallery.js", "card.js", "picker.js", "page.js")


def page(content: PageContent) -> str:
    """The page as text.

    Everything that comes from the data is escaped; the suspects go in as JSON, from which the page's script makes text
    and never markup; and a content security policy allows the page's own script and style, by their digests, and
    pictures that are part of the page. So a label that looks like a script stays text.

    Args:
        content: What to show.

    Raises:
        ValueError: If a picture is neither PNG nor JPEG nor WebP.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lossbuf.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(count=words.count, percent=words.percent)
    return environment.get_template("page.html.j2").render(_context(content))


def save_page(path: str | os.PathLike[str], content: PageContent) -> None:
    """Write the page to a file in UTF-8, whole or not at all.

    Args:
        path: Where to write; missing folders are made.
        content: What to show.

    Raises:
        ValueError: As :func:`page` does.
    """
    text = page(content).encode()
    write_whole(path, lambda file: file.write(text))


def _context(content: PageContent) -> dict[str, Any]:
    from markupsafe import Markup

    table = content.table
    given, suspects = table["given_label"].to_numpy(np.int64), table["is_suspect"].to_numpy(bool)
    suspicion, names = numbers(table, "suspicion"), [text_of(name) for name in content.class_names]
    classes, classes_left_out = class_counts(given, suspects, names)
    style = _template("page.css")
    script = '(() => {\n"use strict";\n' + "\n".join(_template(name) for name in _SCRIPTS) + "})();\n"
    transition = content.transition
    return {
        "title": text_of(content.title),
        "style": Markup(style),
        "style_digest": _digest(style),
        "script": Markup(script),
        "script_digest": _digest(script),
        "data": Markup(payload(content)),
        "noise_rate": content.noise_rate,
        "interval": content.noise_rate_interval,
        "given": content.noise_rate_given,
        "n_rows": len(table),
        "n_suspects": int(suspects.sum()),
        "n_shown": min(int(suspects.sum()), content.max_suspects),
        "n_unseen": int(np.isnan(suspicion).sum()),
        "n_classes": len(names),
        "doubts": [text_of(doubt) for doubt in content.doubts],
        "drawings": [
            ("Suspicion, higher is worse", histogram(suspicion, suspects, content.threshold)),
            ("Mean label loss in nats", histogram(numbers(table, "label_loss"), suspects)),
        ],
        "names": names,
        "long_names": max(len(name) for name in names) > 3,
        "heat": None if transition is None or len(names) > MAX_HEAT else heat_map(transition),
        "flows": None if transition is None or len(names) <= MAX_HEAT else largest_flows(transition, names),
        "classes": classes,
        "classes_left_out": classes_left_out,
        "facts": [(text_of(name), text_of(value)) for name, value in content.facts],
        "skipped": [(text_of(name), text_of(reason)) for name, reason in content.skipped[:MAX_SKIPPED]],
        "n_skipped": len(content.skipped),
    }


def _template(name: str) -> str:
    return files("lossbuf.report").joinpath("templates", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
