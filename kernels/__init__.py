"""The numeric contract of the attention kernels and everything that realises it. Knows nothing of Whisper."""
