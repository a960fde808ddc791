"""``python -m pipeline.stages.pretrain``: the old name of ``pipeline.pretrain``. Goes with the release after 0.1."""

import runpy
import sys

if __name__ == "__main__":
    sys.stderr.write(
        "voxline: warning: pipeline.stages.pretrain is called pipeline.pretrain now (or: voxline pretrain);"
        " the old name goes with the next release\n"
    )
    runpy.run_module("pipeline.pretrain", run_name="__main__")
