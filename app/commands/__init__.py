"""The commands of `tilescribe`: their options, and what they say."""
