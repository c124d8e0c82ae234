"""Exit 0 if an evaluation's scores keep the orders that are claimed; else say where not, exit 1.

Usage: keeps_order.py scores.json PROTOCOL:NETWORK,NETWORK,...[@SENSORS,...] [...]

An order names networks of the table, worst first, such as linear:random,checkpoint@s2,s1+s2. Under
these sensors, or radar, optics and both, each must be above the one before it in micro average
precision, further than its own 95 % interval reaches down. `supervised` learns by its own protocol
and stands in any order. By the linear probe, pretraining must gain over no training in macro
average precision too, and both sensors together must be no worse than the better single one.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

SENSOR_SETS = ("s1", "s2", "s1+s2")

PROBE = "linear"
"""The protocol of the claims that are always made."""

SUPERVISED = "supervised"
"""The network that is trained with the labels, whatever the protocol of the others."""

LEAST_GAIN = 0.02
"""Of pretraining over the untrained network, in micro and macro average precision."""

Row = dict[str, Any]

Rows = dict[tuple[str, str], Row]
"""Rows of one protocol by sensors and network."""


class Claim(NamedTuple):
    """Something that the table should show."""

    text: str
    holds: bool


def main() -> int:
    """Print every claim and whether it holds."""
    path, *orders = sys.argv[1:]
    table = json.loads(Path(path).read_text(encoding="utf-8"))["rows"]
    claims: list[Claim] = []
    for order in orders:
        claims += order_claims(table, order)
    probed = rows_of(table, PROBE)
    claims += [*gain_claims(probed), both_claim(probed)]
    for claim in claims:
        print(f"{'holds' if claim.holds else 'FAILS'}  {claim.text}")
    failed = sum(not claim.holds for claim in claims)
    print(f"{failed} of {len(claims)} claims fail" if failed else "every claim holds")
    return 1 if failed else 0


def rows_of(table: Sequence[Row], protocol: str) -> Rows:
    """The rows of one protocol, and those of the network that is trained with the labels."""
    return {
        (row["sensors"], row["network"]): row
        for row in table
        if row["protocol"] == protocol or row["network"] == SUPERVISED
    }


def order_claims(table: Sequence[Row], order: str) -> Iterator[Claim]:
    """Each network against the one before it, under every sensor set of the order."""
    names, _, chosen = order.partition("@")
    protocol, networks = names.split(":")
    rows = rows_of(table, protocol)
    for sensors in chosen.split(",") if chosen else SENSOR_SETS:
        for lower, upper in pairwise(networks.split(",")):
            yield is_above(rows[sensors, lower], rows[sensors, upper], f"{sensors:>5}, {protocol}")


def gain_claims(rows: Rows) -> Iterator[Claim]:
    """That pretraining helped, under every sensor set and by both measures."""
    for sensors in SENSOR_SETS:
        trained, untrained = rows[sensors, "checkpoint"], rows[sensors, "random"]
        micro, macro = (trained[name] - untrained[name] for name in ("micro_ap", "macro_ap"))
        text = f"pretraining gains {100 * micro:.1f} micro, {100 * macro:.1f} macro mAP"
        yield Claim(f"{sensors:>5}: {text}", min(micro, macro) >= LEAST_GAIN)


def both_claim(rows: Rows) -> Claim:
    """That a second sensor does no harm."""
    both, better = (
        rows["s1+s2", "checkpoint"]["micro_ap"],
        max(rows[sensors, "checkpoint"]["micro_ap"] for sensors in ("s1", "s2")),
    )
    text = f"both sensors {100 * both:.1f}, the better single one {100 * better:.1f}"
    return Claim(text, both >= better)


def is_above(lower: Row, upper: Row, where: str) -> Claim:
    """Whether a row's interval lies above the mean of another."""
    found, least = lower["micro_ap"], upper["estimates"]["micro_ap"]["low"]
    text = (
        f"{where}: {lower['network']} {100 * found:.1f} < {upper['network']} "
        f"{100 * upper['micro_ap']:.1f}, at least {100 * least:.1f}"
    )
    return Claim(text, found < least)


if __name__ == "__main__":
    sys.exit(main())
