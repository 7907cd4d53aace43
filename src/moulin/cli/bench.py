"""`moulin bench`: measurements that others can repeat."""

from __future__ import annotations

from moulin.cli import (
    bench_accuracy,
    bench_capacity,
    bench_churn,
    bench_compare,
    bench_encoder,
    bench_gpu,
    bench_leaderboard,
    bench_offline,
    bench_streaming,
)
from moulin.cli.interrupt import interrupts
from moulin.cli.verbs import VerbApp

_REPORT_SEC = 5.0

app = VerbApp(
    help="Measure whether it is right and how fast it is, beside a peer in the same run.",
    epilog="Example: moulin bench streaming --streams 16,32,64 --to report.html",
)


@app.callback()
def _bench() -> None:
    # Ctrl-C ends the runs; what was measured is still printed and written.
    interrupts.allow(_REPORT_SEC)


for verb in (
    bench_accuracy,
    bench_offline,
    bench_streaming,
    bench_capacity,
    bench_churn,
    bench_encoder,
    bench_gpu,
    bench_leaderboard,
    bench_compare,
):
    verb.add_to(app)
