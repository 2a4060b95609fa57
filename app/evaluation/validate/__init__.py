"""What `tilescribe validate` finds, as a table, as JSON and as a picture."""
