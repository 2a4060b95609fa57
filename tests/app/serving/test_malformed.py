"""Requests that are wrong, by a seed: each gets a clear 4xx, and leaves nothing behind."""

from __future__ import annotations

import json
import sys
from typing import Any

import requests
from material.servers import Served
from places import SCRIPTS

sys.path.insert(0, str(SCRIPTS))
from load_serve import send
from malformed import malformed


def test_each_malformed_request_gets_a_clear_4xx(served: Served, clip: bytes, caplog: Any) -> None:
    for request in malformed(0, 120, clip):
        head, _, body = send(served.url, request.raw).partition(b"\r\n\r\n")
        status = head[9:12]
        assert status.startswith(b"4"), (request.raw[:500], head, body)
        assert b"Traceback" not in body
        if b"x-request-id" in head:  # else it was no HTTP
            assert json.loads(body)["error"]["message"]
    assert requests.get(f"{served.url}/health", timeout=60).json()["requests"] == 0
    assert not [record for record in caplog.records if record.exc_info]
