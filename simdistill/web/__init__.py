"""Serving web pages on a port of this machine."""
