"""Addresses of files for our own components. Streamlit's private interface is used here alone."""

from pathlib import Path

from streamlit import runtime

KINDS = {".png": "image/png", ".mp4": "video/mp4"}


def address_of(path: Path) -> str:
    """Where this tab gets the file from, below the page's own address; "" without a server.

    The server keeps the file while the tab shows it, as it does for `st.image` and `st.video`.
    Raises OSError where the file cannot be read.
    """
    if not runtime.exists():
        return ""
    kind = KINDS.get(path.suffix.lower(), "image/jpeg")
    return runtime.get_instance().media_file_mgr.add(path.read_bytes(), kind, f"file-{path}")
