"""A page to look through the suspects: one file, with nothing from outside."""

from lossbuf.report.content import PageContent
from lossbuf.report.page import save_page
from lossbuf.report.thumbnails import thumbnail

__all__ = ["PageContent", "save_page", "thumbnail"]
