"""Where the tests find the project, and real speech beside it."""

from pathlib import Path

import pytest

from models.compute import has_bfloat16

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
MEASURED_WITHOUT_BFLOAT16 = pytest.mark.xfail(
    has_bfloat16(), reason="whether batches are equal to the bit was not measured with bfloat16", strict=False
)
SPEECH = ROOT.parent / "shared" / "speech"
