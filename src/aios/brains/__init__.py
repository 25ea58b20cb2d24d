"""The brains in a folder and what became of each: listed, in order, with what a window and its notes say beside them.

No torch, no Tk: the window and the command line show the same list.
"""
