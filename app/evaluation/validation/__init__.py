"""`tilescribe validate`: what is measured, as text, and as a picture."""
