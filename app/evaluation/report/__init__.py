"""The report of an evaluation: report.html, one self-contained page; report.md; and the summary that a run prints."""
