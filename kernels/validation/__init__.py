"""Whether kernels compute what they should: the founding report's tile against FP32, many against the reference."""

from kernels.validation.founding_tile import TileResult, Validation, validate_kernel, validate_tile

__all__ = ["TileResult", "Validation", "validate_kernel", "validate_tile"]
