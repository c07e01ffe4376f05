"""Rexis: build and check AI models on biomedical data that none of the parties may show to the others.

Science first, then protocol, then clients. Nothing is imported here, so that a process which only checks a
commitment never loads torch, and `rexis --help` starts at once.
"""
