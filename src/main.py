"""The EPyMARL-style entry: ``python src/main.py --config=kd_student --env-config=mpe with env_args.key=...``."""

from __future__ import annotations

import sys

from kd_marl.train import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
