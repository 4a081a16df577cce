"""The `data` of each verb's answer, as types. They import nothing heavy, and docs/command-json.md is made from them.

Times are in seconds since the epoch. A key that isn't known, or makes no sense in a case, is there, and None.
"""
