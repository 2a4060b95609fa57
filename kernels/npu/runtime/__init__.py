"""Running a program on the NPU through XRT."""
