"""The evaluation: a data set transcribed by several backends, and what follows from it.

A job (`job`) runs batches (`running`, `worker`) and writes records (`records`). Scores, uncertainty,
significance and verdicts (`summarise`) are a pure function of the records: nothing there loads a model or
listens to audio.
"""
