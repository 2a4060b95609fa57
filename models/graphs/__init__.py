"""Whisper's encoder and decoder as OpenVINO graphs, built from the weights of a `whisper.model.Whisper`."""
