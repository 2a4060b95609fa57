"""The report of an evaluation as one self-contained HTML page.

    page = render_page(evaluation, extras={"encoder_error": {"int32": [0.001, 0.002]}}, audio={"id": "a.flac"})

Everything on it is computed from the evaluation (or report.json, which is the same) and from what is handed in.
"""

from app.evaluation.report.page import render_page

__all__ = ["render_page"]
