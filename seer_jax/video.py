"""Frames in, one mp4 file out, of the kind every browser plays."""

import contextlib
import pathlib
import subprocess
from collections.abc import Sequence

import imageio_ffmpeg
import numpy as np

from seer_jax import logger
from seer_jax.types import UserError


def write_video(path: str | pathlib.Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """Writes H.264 in mp4. `path` appears when the file is whole, never before.

    Args:
        path: ends in .mp4; its folder is made if absent, a file already there is replaced.
        frames: at least one u8[H, W, 3], all of one size. An odd height or width grows by one
            pixel, the edge's repetition, because browsers want chroma halved both ways (yuv420p).
        fps: frames a second.

    Raises:
        UserError: the file cannot be written, for example because the disk is full; or there is no
            ffmpeg.
    """
    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise UserError(
            "There is no ffmpeg to write videos with: pip install --force-reinstall "
            "imageio-ffmpeg, or add --no_video."
        ) from error
    path = pathlib.Path(path)
    height, width = frames[0].shape[:2]
    edges = ((0, height % 2), (0, width % 2), (0, 0))
    temporary = path.with_name(path.name + ".tmp")
    command = [
        program, "-y", "-loglevel", "error",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-r", str(fps),
        "-s", f"{width + width % 2}x{height + height % 2}", "-i", "-",
        "-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart",
        "-f", "mp4", str(temporary.absolute()),  # else "exp:1/..." were a protocol
    ]  # fmt: skip

    # imageio_ffmpeg has a writer of its own, but it does not look at ffmpeg's exit status, and a
    # full disk shows only there.
    with logger.disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        pipe = subprocess.PIPE
        # A session of its own: Ctrl-C is for the run, which ends in order.
        with subprocess.Popen(command, stdin=pipe, stderr=pipe, start_new_session=True) as ffmpeg:
            assert ffmpeg.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # ffmpeg gave up; its stderr says why
                for frame in frames:
                    assert frame.dtype == np.uint8 and frame.shape == (height, width, 3)
                    ffmpeg.stdin.write(np.pad(frame, edges, mode="edge").tobytes())
            message = ffmpeg.communicate()[1].decode(errors="replace")
        if ffmpeg.returncode != 0:
            temporary.unlink(missing_ok=True)
            # Its first line, "[where] what", says most; the others are consequences.
            what = message.partition("\n")[0].rpartition("] ")[2]
            raise OSError(what or f"ffmpeg ended with status {ffmpeg.returncode}")
        temporary.replace(path)
