"""Names under which people keep labels, samples, images and ids, and the best guesses where none of them is there."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from lossbuf.errors import InputError

LABEL_NAMES = ("y", "label", "labels", "target", "targets", "y_train", "class", "classes")
"""Names of the column, or array, of labels; the first that is there is taken."""

MORE_LABEL_NAMES = (
    "given_label", "given_labels", "noisy_label", "noisy_labels", "train_labels", "train_label", "train_y", "arr_1",
    "fine_label", "fine_labels", "label_name", "label_names", "class_name", "class_label", "label_id", "label_ids",
    "class_id", "category", "category_name", "category_id", "diagnosis", "species", "variety", "breed", "dx",
    "coarse_label", "coarse_labels",
)  # fmt: skip
"""Further names, of cleanlab, Hugging Face, MedMNIST and Kaggle; where one of them is taken, a note says so."""

X_NAMES = (
    "x", "X", "images", "data", "features", "embeddings", "x_train", "X_train", "train_images", "train_x", "train_data",
    "train_features", "imgs", "img", "image", "pixel_values", "inputs", "samples", "feats", "embedding", "vectors",
    "arr_0",
)  # fmt: skip
"""Names of the array of samples; the first that is there is taken."""

IMAGE_NAMES = (
    "image", "image_path", "path", "file", "filename", "file_name", "filepath", "img", "img_path", "image_file",
    "image_filename", "image_name", "img_name", "fname", "picture", "photo", "file_path", "images",
)  # fmt: skip
"""Names of the column of images; the first that is there and holds texts, or images in bytes, is taken."""

IMAGE_ID_NAMES = ("image_id", "id_code", "name", "id", "img_id", "photo_id")
"""Names of columns that hold images only if their texts are the names of files."""

ID_NAMES = ("", "id", "ids", "index", "row", "row_id", "uid", "uuid", "image_id", "id_code", "sample_id", "example_id")
"""Names of a column that names the rows if its values are all different."""


def key(name: object) -> str:
    """A name as it is compared with usual ones: without case, spaces, underscores and other signs.

    Example:
        >>> key(" File Name "), key("ImageId") == key("image_id")
        ('filename', True)
    """
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", str(name)).casefold())


def find(usual: Iterable[str], names: Collection[str]) -> str | None:
    """The first of the usual names that is there as it is written; else the first that is there in another spelling."""
    usual = [name for name in usual if name]
    exact = next((name for name in usual if name in names), None)
    if exact is not None:
        return exact
    by_key: dict[str, str] = {}
    for name in names:
        by_key.setdefault(key(name), name)
    return next((by_key[key(name)] for name in usual if key(name) in by_key), None)


def asked_for(where: str, asked: str, names: Collection[str], what: str, option: str) -> str:
    """A name that the user gave, as it is spelled in the source.

    Args:
        where: The source, for the message.
        asked: What the user gave.
        names: What is there.
        what: ``"column"`` or ``"array"``.
        option: The option that it was given with.

    Raises:
        InputError: If there is none of this name; the message has the closest ones.
    """
    if asked in names:
        return asked
    close = closest([asked], names)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise InputError(
        f"{where} must have {_an(what)} {asked!r}, got {listed(names)}. Name another one: `{option} NAME`.{hint}"
    )


def closest(wanted: Sequence[str], names: Collection[str], most: int = 2) -> list[str]:
    """The names that are spelled most like one of those wanted, at most so many."""
    scored = [
        (max(difflib.SequenceMatcher(None, key(name), key(other)).ratio() for other in wanted), name)
        for name in names
        if len(key(name)) > 2 or key(name) in map(key, wanted)  # a single letter is like many
    ]
    return [name for score, name in sorted(scored, key=lambda pair: -pair[0])[:most] if score >= 0.6]


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names in one line, at most so many of them."""
    names = [str(name) for name in names]
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def quoted(names: Iterable[str], most: int = 20) -> str:
    """The same with every name in quotes."""
    return listed(map(repr, names), most)


def _an(what: str) -> str:
    return f"an {what}" if what[0] in "aeiou" else f"a {what}"
