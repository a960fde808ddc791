"""`python -m pipeline.pretrain RECIPE --data FOLDER`: the same where typer is not installed."""

import argparse
from pathlib import Path

import torch

from pipeline.pretrain.recipe import read_recipe
from pipeline.pretrain.run import run_pretraining


def main() -> None:
    parser = argparse.ArgumentParser(prog="pipeline.pretrain")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("work/pretrain"))
    parser.add_argument("--stage", action="append", default=[])
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run_pretraining(read_recipe(options.recipe), options.data, options.work, device, options.stage)


if __name__ == "__main__":
    main()
