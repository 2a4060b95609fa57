"""Evidence: from the records of a run to scores, uncertainty, significance and a verdict.

    records = {name: load([folder / f"{name}.jsonl"]) for name in ("cpu", "int32", "int8")}
    evaluation = summarise(records, limits=read_limits(), validation={"int32": KernelValidation(...)})
    evaluation.verdict("int32").outcome

Nothing here loads a model or listens to audio: the records are all it knows.
"""

from app.evidence.errors import EvidenceError
from app.evidence.evaluation import Evaluation
from app.evidence.limits import Limits, read_limits
from app.evidence.merging import load
from app.evidence.record_files import RecordFile, RecordWriter
from app.evidence.records import BackendRecords, DatasetDescription, RunDescription, UtteranceRecord
from app.evidence.report_markdown import report_markdown
from app.evidence.summarise import summarise
from app.evidence.validation import KernelValidation
from app.evidence.verdict import Verdict, gate_exit_code

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
