"""A picture of the dashboard on a real run, cell by cell as a terminal draws it.

    python tests/benchmarks/picture.py RUN OUT.png [--size 120x40] [--screen live] [--at SECOND]

`pictures.py` makes those of the README, from the real program.
"""

import argparse
import asyncio
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from dashboard.follow import due
from loadbench import runlog
from tests.benchmarks.sheet import draw
from tests.stage import folded, settle, shown, text


async def picture(options: argparse.Namespace) -> None:
    folder = runlog.find(options.run, runlog.results_folder(options.out))
    until = options.at if options.at is not None else float("inf")
    records = itertools.takewhile(lambda record: due(record) <= until, runlog.read(folder))
    width, height = (int(part) for part in options.size.split("x"))
    async with shown(folded(records), (width, height), folder, options.theme) as (app, pilot):
        if options.screen != "live":
            app.action_go(options.screen)
        if options.zoom:
            app.action_look("span", options.zoom)
        for key in options.keys.split():
            await pilot.press(key)
        await settle(pilot)
        if options.text:
            print(text(app))
        draw(app.screen._compositor.render_strips(), app.size, options.file)


def main() -> None:
    parser = argparse.ArgumentParser(description="A picture of the dashboard on a run.")
    parser.add_argument("run", help="a run folder, a number, or last")
    parser.add_argument("file", type=Path, help="where the PNG goes")
    parser.add_argument("--size", default="120x40")
    parser.add_argument("--screen", default="live", help="live, engine, alerts or latency")
    parser.add_argument("--at", type=float, help="second of the run; default: its end")
    parser.add_argument("--zoom", type=int, help="visible seconds")
    parser.add_argument("--keys", default="", help="keys to press first, like 'l minus'")
    parser.add_argument("--theme", default="loadbench")
    parser.add_argument("--out", help="the results folder")
    parser.add_argument("--text", action="store_true", help="print the cells too")
    asyncio.run(picture(parser.parse_args()))


if __name__ == "__main__":
    main()
