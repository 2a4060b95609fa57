"""OpenAI's Realtime transcription over WebSocket: text of sound while it comes."""
