"""Where ``storage`` puts bytes: one module a kind of place, all with the same functions.

folder       a folder of this machine: renames and links are what is atomic
s3           S3 and what speaks its protocol
s3_client    requests to it, repeated while they may heal
s3_transfer  objects up and down, each byte checked
other        any other fsspec URL, such as ``memory://`` or ``gs://``, as fsspec does it
found        a file that is there

The functions are ``read``, ``read_range``, ``find``, ``find_below``, ``find_matching``,
``exists``, ``names``, ``write``, ``create``, ``write_file``, ``read_file`` and ``remove``. They
raise Python's own errors (``FileNotFoundError``, ``FileExistsError``, ``OSError``); ``storage``
tells them in ours.
"""
