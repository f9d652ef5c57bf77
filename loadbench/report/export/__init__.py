"""Runs in the forms that other tools take: one module a format, values in and bytes or text out.

`source` reads the run, `table` says what a second is; `deliver` writes files and sends to servers.
"""
