"""Whisper: weights, log-mel features, the encoder with its attention seam, and the decoder."""

import sys
from typing import Any

# Importing OpenVINO reports the import to Google Analytics, from a forked process. Nothing here reports anything: where
# the package that does it is missing, OpenVINO does without. First of all, as every module of models may import it.
_modules: dict[str, Any] = sys.modules
_modules.setdefault("openvino_telemetry", None)
