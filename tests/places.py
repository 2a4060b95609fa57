"""Where the tests find the project, and real speech beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
SPEECH = ROOT.parent / "shared" / "speech"
