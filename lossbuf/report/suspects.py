"""The suspects, as data that the page's script reads."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lossbuf import checks
from lossbuf.recording.scores import suspicion_order
from lossbuf.report.content import PageContent, numbers, text_of

_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def worst_suspects(content: PageContent) -> pd.DataFrame:
    """The suspects that the gallery holds, worst first; rows never seen come last."""
    table = content.table.sort_index()  # between equals the lower row comes first
    order = suspicion_order(numbers(table, "suspicion"), numbers(table, "label_loss"))
    worst = order[table["is_suspect"].to_numpy(bool)[order]]
    return table.iloc[worst[: content.max_suspects]]


def payload(content: PageContent) -> str:
    """The suspects as JSON that can stand in a ``script`` element: nothing in it ends the element or begins another.

    Columns, worst first: ``ids``, ``given``, ``suggested``, ``predicted``, ``scores``, ``probabilities`` (``null``
    where there are none) and ``pictures`` (``null`` likewise). ``key`` is a digest of ids, labels and classes, under
    which the browser keeps what was decided.

    Raises:
        ValueError: If a picture is neither PNG nor JPEG nor WebP.
    """
    suspects = worst_suspects(content)
    known = "wrong_probability" in suspects.columns
    probabilities = numbers(suspects, "wrong_probability") if known else np.full(len(suspects), np.nan)
    data: dict[str, Any] = {
        "classes": [text_of(name) for name in content.class_names],
        "ids": [text_of(name) for name in suspects["id"]],
        "given": suspects["given_label"].tolist(),
        "suggested": suspects["suggested_label"].tolist(),
    }
    data["key"] = hashlib.sha256(json.dumps(data).encode()).hexdigest()
    data["predicted"] = suspects["predicted_label"].tolist()
    data["scores"] = _rounded(numbers(suspects, "suspicion"))
    data["probabilities"] = None if np.isnan(probabilities).all() else _rounded(probabilities)
    data["pictures"] = _pictures(content, suspects)
    return script_json(data)


def script_json(data: Any) -> str:
    """JSON in ASCII without the characters that mean something in HTML.

    Example:
        >>> script_json("</script>")
        '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character, code in _UNSAFE.items():
        text = text.replace(character, code)
    return text


def _rounded(values: NDArray[np.float64]) -> list[float | None]:
    """Five digits; ``None`` for what JSON cannot say, infinite values as very large ones."""
    finite = np.nan_to_num(values, nan=0.0, posinf=1e300, neginf=-1e300)
    return [None if lost else float(f"{value:.5g}") for value, lost in zip(finite, np.isnan(values), strict=True)]


def _pictures(content: PageContent, suspects: pd.DataFrame) -> list[str | None] | None:
    if content.thumbnail is None:
        return None
    return [_data_uri(content.thumbnail(int(row)), int(row)) for row in suspects.index]


def _data_uri(picture: bytes | None, row: int) -> str | None:
    if picture is None:
        return None
    if picture.startswith(b"\x89PNG"):
        kind = "png"
    elif picture.startswith(b"\xff\xd8"):
        kind = "jpeg"
    elif picture[:4] == b"RIFF" and picture[8:12] == b"WEBP":
        kind = "webp"
    else:
        rule = "must give PNG, JPEG or WebP, or None"
        raise ValueError(checks.problem("thumbnail", rule, f"{picture[:8]!r}... for row {row}"))
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
