"""Frames of a run's film, for other runs to begin with. Never imports torch."""

from PIL import Image

from studio.base.errors import BadInput
from studio.media import frames
from studio.media.frame_marks import FrameOf, marked_png
from studio.media.pictures import load_picture
from studio.runs.storage import RunFolder


def frame_of(folder: RunFolder, number: int) -> Image.Image:
    """A frame of the run's film, counted from 1, at the size of the run's picture.

    A film has even sides, and shows several pictures of a run side by side: the frame is cut to the
    first picture. Raises BadInput.
    """
    film = folder.video_path()
    if film is None:
        raise BadInput(f"The run {folder.name} has no video to take a frame from.")
    frame = frames.frame(film, number)
    picture = folder.picture_path()
    if picture is None:
        return frame
    width, height = load_picture(picture, f"The picture {picture}").size
    return frame.crop((0, 0, min(width, frame.width), min(height, frame.height)))


def marked_frame(folder: RunFolder, number: int) -> bytes:
    """The frame as a PNG that says which frame of which run it is. Raises BadInput."""
    return marked_png(frame_of(folder, number), FrameOf(folder.name, number))
