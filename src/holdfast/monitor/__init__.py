"""Monitoring of a serving model: is it there, is it used, is it right.

Pure functions over collected data; the page, `holdfast status` and the metrics show their results.
"""
