"""The command that makes a table of pairs from folders: `list-pairs`."""

from pathlib import Path

import click

from bigearth_prep.cli_options import COLLECTION_OPTION, FOLDER
from bigearth_prep.errors import PrepError
from bigearth_prep.terminal import VerboseCommand, config_option, json_option, print_json


@click.command("list-pairs", cls=VerboseCommand)
@click.argument("root", type=FOLDER)
@COLLECTION_OPTION
@click.option("--out", type=FOLDER, required=True, help="Table to write: .parquet or .csv.")
@json_option("the result")
@config_option()
def list_pairs(root: Path, *, collection: str | None, out: Path, as_json: bool) -> None:
    """Find the pairs below ROOT by the collection's path patterns, as a table for --pairs.

    What has no partner has a row of its own, which a build lists among the rejected.
    """
    from bigearth_prep.collection_file import open_collection
    from bigearth_prep.list_pairs import list_folder, write_pairs

    if collection is None:
        raise click.UsageError("give --collection, which says how the files are laid out")
    listed = list_folder(root, open_collection(collection))
    write_pairs(listed, root, out)
    if as_json:
        print_json({"pairs": listed.pairs, "without_partner": listed.alone})
    else:
        click.echo(f"{out}: {listed.pairs:,} pairs")
        alone = ", ".join(f"{count:,} {sensor}" for sensor, count in listed.alone.items() if count)
        click.echo(f"without partner: {alone or 'none'}")
    if not listed.pairs:
        raise PrepError(f"no pair was found below {root}; compare it with [listing] of the TOML")
