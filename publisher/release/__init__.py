"""plan -> harden -> package (unsigned) -> evaluate -> report -> sign.

Imports nothing: ``publisher plan`` needs :mod:`publisher.release.prepare`, and not what comes after it.
"""
