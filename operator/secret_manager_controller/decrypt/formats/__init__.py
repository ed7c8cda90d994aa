"""The formats of files, one module each: text to tree, and how a value of the tree is printed.

What belongs here: pure parsing. What must not: keys, ciphers, subprocesses.
"""
