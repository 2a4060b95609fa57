"""Make the sample in datasets/sample: a few sentences spoken by flite (Debian: apt-get install flite), as FLAC.

    python scripts/make_sample.py

The voice is rms, of the CMU ARCTIC data; of flite's voices it is the one that tiny.en understands word for word.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import av

SAMPLE = Path(__file__).resolve().parents[1] / "datasets" / "sample"
VOICE = "rms"


def main() -> int:
    if shutil.which("flite") is None:
        print("error: flite is not installed: apt-get install flite", file=sys.stderr)
        return 5
    with tempfile.TemporaryDirectory() as folder:
        spoken = Path(folder) / "spoken.wav"
        text = SAMPLE / "harbour.txt"
        subprocess.run(["flite", "-voice", VOICE, "-f", str(text), "-o", str(spoken)], check=True)
        with av.open(str(spoken)) as source, av.open(str(SAMPLE / "harbour.flac"), "w") as target:
            track = target.add_stream("flac", rate=source.streams.audio[0].rate, layout="mono")
            for frame in source.decode(audio=0):
                target.mux(track.encode(frame))
            target.mux(track.encode(None))
    print(f"wrote {SAMPLE / 'harbour.flac'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
