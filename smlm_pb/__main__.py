"""``python -m smlm_pb`` is the same command as ``smlm-pb``."""

import sys

from smlm_pb.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
