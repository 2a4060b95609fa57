"""Whether kernels compute what they should: the report's tile against FP32, many tiles against the reference."""

from kernels.validation.report_tile import (
    KERNEL_NAMES,
    KernelName,
    TileResult,
    Validation,
    validate_kernel,
    validate_tile,
)

__all__ = ["KERNEL_NAMES", "KernelName", "TileResult", "Validation", "validate_kernel", "validate_tile"]
