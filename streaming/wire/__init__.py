"""The parts of protocol.py: the header, the kinds of samples, and what numbers may be."""
