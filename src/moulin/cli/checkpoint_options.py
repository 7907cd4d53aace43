"""Which of a training's checkpoints a verb reads: Icefall's own options, and the vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EpochOption = Annotated[
    int | None, typer.Option(min=0, help="Of a folder of checkpoints take epoch-N.pt; with --avg, epochs up to it.")
]
IterOption = Annotated[
    int | None,
    typer.Option("--iter", min=0, help="Instead of epochs, take the latest checkpoint-N.pt with N up to this."),
]
AvgOption = Annotated[
    int | None, typer.Option(help="How many checkpoints to average, for --epoch and --iter.  [default: 1]")
]
AveragedModelOption = Annotated[
    bool,
    typer.Option(
        "--use-averaged-model",
        help="Average over all of training (model_avg), from the checkpoint --avg before --epoch or --iter to it, or "
        "from the first to the second of two files.",
    ),
]
TokensOption = Annotated[
    Path | None,
    typer.Option(help="A checkpoint's tokens.txt.  [default: the one beside it, or the only ../data/lang*/tokens.txt]"),
]
