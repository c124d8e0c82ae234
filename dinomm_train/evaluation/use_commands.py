"""The commands that use a pretrained network without labels: `embed`, `export`, `attention`."""

from pathlib import Path

import click

from bigearth_prep.terminal import config_option, json_option, print_json
from dinomm_train.command_options import dataset_location, storage_options
from dinomm_train.data.storage_options import StorageOptions
from dinomm_train.evaluation.config import ExtractionConfig, NetworkChoice
from dinomm_train.evaluation.network_options import (
    extraction_options,
    network_options,
    path_ending,
)


@click.command("embed")
@network_options
@click.argument("dataset", callback=dataset_location)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    callback=path_ending(".parquet", ".zarr"),
    help="Parquet file or Zarr group of keys and features.",
)
@extraction_options
@storage_options
@json_option("the result")
@config_option()
def embed_command(
    *,
    network: NetworkChoice,
    dataset: str | Path,
    out: Path,
    extraction: ExtractionConfig,
    storage: StorageOptions,
    as_json: bool,
) -> None:
    """Write the features of every patch of DATASET, by key, split and sensors."""
    from dinomm_train.data.location import open_dataset
    from dinomm_train.evaluation.contestants import open_network
    from dinomm_train.evaluation.embeddings import write_embeddings

    stored = open_dataset(dataset, storage)
    rows = write_embeddings(open_network(network, stored), stored, out, extraction)
    if as_json:
        print_json({"out": str(out), "rows": rows})
        return
    click.echo(f"{rows:,} rows of features in {out}")


@click.command("export")
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=path_ending(".safetensors"),
    help="Safetensors file to write.",
)
@json_option("the file's metadata")
def export_command(checkpoint: Path, out: Path, *, as_json: bool) -> None:
    """Write CHECKPOINT's teacher backbone for timm, with all that its user must know.

    CHECKPOINT is a run folder, a checkpoint, or the published weights.
    """
    from dinomm_train.export import write_export
    from dinomm_train.pretrained import read_frozen_backbone

    exported = write_export(read_frozen_backbone(checkpoint), out)
    if as_json:
        print_json({"out": str(out)} | exported.metadata)
        return
    arguments = ", ".join(f"{name}={value!r}" for name, value in exported.arguments.items())
    click.echo(f"{out} loads with\n")
    click.echo(f"timm.create_model({exported.name!r}, checkpoint_path={str(out)!r}, {arguments})")


@click.command("attention")
@network_options
@click.argument("dataset", callback=dataset_location)
@click.option("--key", required=True, help="Of the patch, as manifest.parquet lists it.")
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=path_ending(".png"),
    help="Picture to write.",
)
@extraction_options
@storage_options
@config_option()
def attention_command(
    *,
    network: NetworkChoice,
    dataset: str | Path,
    key: str,
    out: Path,
    extraction: ExtractionConfig,
    storage: StorageOptions,
) -> None:
    """Draw what CHECKPOINT looks at in one patch: as both sensors, optical alone, radar alone.

    Above, the last block's attention from the CLS token, mean over heads; below, the first three
    principal components of its patch tokens as colours.
    """
    from bigearth_prep.whole_file import whole_file
    from dinomm_train.data.location import open_dataset
    from dinomm_train.evaluation.contestants import open_network
    from dinomm_train.evaluation.pictures.attention import draw_attention, look_at_patch

    stored = open_dataset(dataset, storage)
    look = look_at_patch(open_network(network, stored), stored, key, extraction)
    with whole_file(out) as partial:
        draw_attention(look).savefig(partial, format="png", dpi=150)
    click.echo(str(out))
