"""Words while they are said: streams of samples, and where they come from."""
