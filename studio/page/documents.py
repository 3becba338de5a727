"""Documents of the project on the page."""

import re
from pathlib import Path

import streamlit as st

PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
RELATIVE_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)[^)]*\)")


@st.fragment
def show_document(path: Path) -> None:
    """A Markdown file in an expander of its name; nothing if there is no such file.

    It is sent when someone opens it: drawing code takes a browser as long as the rest of the page.
    """
    if not path.is_file():
        return
    box = st.expander(path.stem, key=f"document-{path.stem}", on_change="rerun")
    if not box.open:
        return
    with box:
        text, *rest = PICTURE.split(path.read_text(encoding="utf-8"))
        _show_text(text)
        for alt, address, text in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            _show_picture(path.parent / address, alt)
            _show_text(text)


def _show_text(text: str) -> None:
    """Links into the project's folder lead nowhere from here: only their words are shown."""
    st.markdown(RELATIVE_LINK.sub(r"\1", text))


def _show_picture(path: Path, alt: str) -> None:
    """A picture of the project. The page loads nothing from elsewhere, so badges are left out."""
    if path.is_file():
        st.image(str(path), caption=alt or None, alt=alt)
