"""From source to a program: the tool chain, the builds that are kept, and the source compiled for the host."""
