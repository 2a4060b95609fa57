"""The OpenAI audio API over HTTP: one model in memory, decoding the recordings of all requests in turn."""
