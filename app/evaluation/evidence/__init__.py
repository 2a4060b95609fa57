"""Evidence: from the records of a run to scores, uncertainty, significance and a verdict.

    records = {name: load([folder / f"{name}.jsonl"]) for name in ("cpu", "int32", "int8")}
    evaluation = summarise(records, limits=read_limits(), validation={"int32": KernelValidation(...)})
    evaluation.verdict("int32").outcome

Nothing here loads a model or listens to audio: the records are all it knows.
"""

from app.evaluation.evidence.errors import EvidenceError
from app.evaluation.evidence.evaluation import Evaluation
from app.evaluation.evidence.limits import Limits, read_limits
from app.evaluation.evidence.merging import load
from app.evaluation.evidence.record_files import RecordFile, RecordWriter
from app.evaluation.evidence.records import (
    BackendRecords,
    DatasetDescription,
    RunDescription,
    UtteranceRecord,
)
from app.evaluation.evidence.report_markdown import report_markdown
from app.evaluation.evidence.summarise import summarise
from app.evaluation.evidence.validation import KernelValidation
from app.evaluation.evidence.verdict import Verdict, gate_exit_code

__all__ = [
    "BackendRecords",
    "DatasetDescription",
    "Evaluation",
    "EvidenceError",
    "KernelValidation",
    "Limits",
    "RecordFile",
    "RecordWriter",
    "RunDescription",
    "UtteranceRecord",
    "Verdict",
    "gate_exit_code",
    "load",
    "read_limits",
    "report_markdown",
    "summarise",
]
