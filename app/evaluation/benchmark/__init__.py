"""`tilescribe bench`: what is measured, its results as objects, and as text; the encoders of every size of Whisper."""
