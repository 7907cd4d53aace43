"""An engine whose model never comes to its end of loading."""

from __future__ import annotations

from moulin.bulk.local.channel import Channel
from moulin.bulk.local.child import run_child


def serve(channel: Channel) -> None:
    while channel.receive() is not None:
        pass


if __name__ == "__main__":
    run_child(serve)
