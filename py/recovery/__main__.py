"""Run by `lib/python.sh` with `python3 -I -S`: the helper behind the scripts."""

import gc
import os
import sys

if __name__ == "__main__":
    gc.disable()  # the process ends before there is garbage worth collecting
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from recovery.helper import main

    main(sys.argv[1:])
