"""What a kernel does to words: runs, records, scoring, statistics, verdicts and their reports."""
