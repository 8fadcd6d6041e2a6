"""Operators in torch for mmcv-lite: ``_ext.py`` is installed beside mmcv's own files, and imported as ``mmcv._ext``."""
