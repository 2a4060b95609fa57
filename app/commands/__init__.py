"""One module for each command of `tilescribe`."""
