"""Pictures that the page keeps for the form."""

import os

import pytest

from studio.base.errors import BadInput
from studio.page import kept
from studio.page.kept import keep_picture


def test_the_same_picture_is_kept_once_and_only_the_newest_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "MOST", 3)
    paths = []
    for n in range(5):
        paths.append(keep_picture(tmp_path, b"picture %d" % n))
        os.utime(paths[-1], ns=(n, n))
    assert keep_picture(tmp_path, b"picture 4") == paths[4]
    assert paths[4].read_bytes() == b"picture 4"
    assert sorted(paths[4].parent.iterdir()) == sorted(paths[2:])


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / ".page").write_text("in the way")
    with pytest.raises(BadInput, match="cannot be kept"):
        keep_picture(tmp_path, b"picture")
