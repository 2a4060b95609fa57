"""A LibriSpeech of four utterances and two speakers, made on the spot, and a mirror that serves its archive."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from material.audio_files import sweep, write

from datasets.librispeech import NamedSet

TEXTS = {
    "19-198-0000": "ONE TWO",
    "19-198-0001": "THREE",
    "19-227-0000": "FOUR FIVE SIX",
    "26-495-0000": "SEVEN",
}


def make_set(folder: Path, *names: str) -> Path:
    """The set's own folder, with all utterances or those named, 0.5 s each; returns it."""
    for name in names or tuple(TEXTS):
        speaker, chapter, _ = name.split("-")
        place = folder / speaker / chapter
        place.mkdir(parents=True, exist_ok=True)
        write(place / f"{name}.flac", sweep(16000, 0.5), 16000, "flac")
        with (place / f"{speaker}-{chapter}.trans.txt").open("a") as transcript:
            transcript.write(f"{name} {TEXTS[name]}\n")
    return folder


def pack(librispeech: Path, extra: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    """A .tar.gz of a LibriSpeech folder, with further members of no length at its end."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(librispeech, "LibriSpeech")
        for member in extra:
            tar.addfile(member)
    return packed.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """An archive's member without content."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def small_set(archive: bytes, *mirrors: str, md5: str | None = None) -> NamedSet:
    """The catalogue's entry for the set: its archive, and where that lies."""
    return NamedSet(
        folder="test-small",
        archive_bytes=len(archive),
        archive_md5=md5 or hashlib.md5(archive).hexdigest(),
        utterances=len(TEXTS),
        hours=2 / 3600,
        speakers=frozenset(("19", "26")),
        mirrors=mirrors,
    )


@dataclass
class Mirror:
    """A server of one file, and the ways in which it may misbehave."""

    data: bytes
    url: str = ""
    ranges: bool = True
    status: int = 200
    drop_after: list[int] = field(default_factory=list)
    """Bytes after which each request's connection is cut, in order; later requests are answered in full."""
    silent_about_length: bool = False
    content_range: str | None = None
    """To say instead of the right one."""
    asked: list[str | None] = field(default_factory=list)
    """Each request's Range."""


@contextlib.contextmanager
def serving(mirror: Mirror) -> Iterator[Mirror]:
    """Serve it on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            mirror.asked.append(wanted)
            if mirror.status != 200:
                self.send_error(mirror.status)
                return
            match = re.fullmatch(r"bytes=(\d+)-", wanted or "") if mirror.ranges else None
            start = int(match[1]) if match else 0
            if match and start >= len(mirror.data):
                self.send_error(416)
                return
            body = mirror.data[start:]
            self.send_response(206 if match else 200)
            if match:
                said = f"bytes {start}-{len(mirror.data) - 1}/{len(mirror.data)}"
                self.send_header("Content-Range", mirror.content_range or said)
            if not mirror.silent_about_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = mirror.drop_after.pop(0) if mirror.drop_after else len(body)
            with contextlib.suppress(OSError):
                self.wfile.write(body[:cut])
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        mirror.url = f"http://127.0.0.1:{server.server_port}/resources/12"
        try:
            yield mirror
        finally:
            server.shutdown()
            thread.join()
