"""The live system's own files: ``root/`` as they lie there, ``links.txt`` for links.

Not code: the builder copies them into the topmost layer of the medium.
"""
