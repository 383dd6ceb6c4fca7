"""Contents of pages for the tests."""

import numpy as np
import pandas as pd

from lossbuf.report.page import PageContent
from lossbuf.report.thumbnails import thumbnail

HOSTILE = [
    "</script><script>window.pwned=1</script>",
    '<img src=x onerror="window.pwned=2">',
    '=HYPERLINK("x","y")',
    "{{ 7 * 7 }} {% raw %} & ' \" ` ${window.pwned=3} <!-- -->",
    "",
    "قط\u202eabc",
    "long " * 80,
    "line\nbreak\u2028and\u2029more",
]


def table(n=60, num_classes=3, suspects=20, seed=0):
    """Rows whose worst ``suspects`` are suspects; the suspicion falls with the row number."""
    draws = np.random.default_rng(seed)
    suspicion = np.sort(draws.normal(0, 3, n))[::-1]
    given = draws.integers(0, num_classes, n)
    suspect = np.arange(n) < suspects
    suggested = np.where(suspect, (given + 1) % num_classes, given)
    found = pd.DataFrame(
        {
            "id": [f"row-{row}" for row in range(n)],
            "given_label": given,
            "suggested_label": suggested,
            "predicted_label": suggested,
            "is_suspect": suspect,
            "suspicion": suspicion,
            "wrong_probability": 1 / (1 + np.exp(-suspicion)),
            "label_loss": np.abs(suspicion) + 0.1,
        }
    )
    return found.iloc[draws.permutation(n)]


def picture(row):
    """A tiny picture that differs from row to row."""
    return thumbnail(np.full((1, 8, 8), row % 256, dtype=np.uint8))


def content(**changes):
    """A plain content with the changes made."""
    rows = changes.get("table", table())
    num_classes = len(changes["class_names"]) if "class_names" in changes else 3
    plain = {
        "title": "Labels of pets",
        "class_names": ["cat", "dog", "eel"][:num_classes],
        "table": rows,
        "noise_rate": 0.25,
        "noise_rate_interval": (0.2, 0.31),
        "threshold": float(rows["suspicion"][rows["is_suspect"]].min()) if rows["is_suspect"].any() else float("inf"),
        "transition": np.full((num_classes, num_classes), 0.2 / max(num_classes - 1, 1)) * (1 - np.eye(num_classes))
        + (0.8 if num_classes > 1 else 1.0) * np.eye(num_classes),
        "thumbnail": picture,
        "facts": [("Network", "a small one")],
        "skipped": [],
        "doubts": [],
    }
    return PageContent(**{**plain, **changes})


def hostile_content(**changes):
    """Markup, formulas and more wherever a name or text may stand."""
    rows = table(80, len(HOSTILE), 40)
    rows["id"] = [f"{HOSTILE[row % len(HOSTILE)]}{row}" for row in rows.index]
    pairs = [(name, name) for name in HOSTILE]
    return content(
        **{"title": HOSTILE[0], "class_names": HOSTILE, "table": rows, "facts": pairs, "skipped": pairs}, **changes
    )
