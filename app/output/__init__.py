"""What is written for the user: transcripts in their formats, and files that appear whole or not at all."""
