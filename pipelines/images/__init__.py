"""Decoding of picture files, and the tars they are packed in."""
