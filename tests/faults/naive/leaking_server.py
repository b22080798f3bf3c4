"""The negative control of R19: the server, with a handler that keeps 4 kB of every request."""

import sys

from serving.__main__ import main
from serving.v2.codec import V2Codec

_kept = []
_encode = V2Codec.encode


def _leaking(self, answer):
    _kept.append(bytearray(4_096))
    return _encode(self, answer)


V2Codec.encode = _leaking
if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
