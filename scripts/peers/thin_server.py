"""faster-whisper behind the thinnest server there can be: a body is a recording, the answer its text.

Run in faster-whisper's environment, with the folder of its model and the number of threads; it prints its port.
"""

from __future__ import annotations

import io
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from faster_whisper import WhisperModel


def main(folder: str, threads: str) -> None:
    model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=int(threads))

    class Transcribes(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            audio = io.BytesIO(self.rfile.read(int(self.headers["content-length"])))
            segments, _ = model.transcribe(audio, language="en", beam_size=1, vad_filter=False)
            text = "".join(segment.text for segment in segments).strip().encode()
            self.send_response(200)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    class Patient(ThreadingHTTPServer):
        request_queue_size = 128  # of connections; 5 by itself, and others are refused

    server = Patient(("127.0.0.1", 0), Transcribes)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
