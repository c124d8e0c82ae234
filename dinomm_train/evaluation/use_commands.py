"""The commands that use a pretrained network without labels: `embed`, `export`, `attention`."""

from pathlib import Path

import click

from bigearth_prep.terminal import config_option, print_json
from dinomm_train.evaluation.command_options import (
    DATASET,
    extraction_options,
    network_options,
    path_ending,
)
from dinomm_train.evaluation.config import ExtractionConfig, NetworkChoice


@click.command("embed")
@network_options
@click.argument("dataset", type=DATASET)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    callback=path_ending(".parquet", ".zarr"),
    help="Parquet file or Zarr group of keys and features.",
)
@extraction_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@config_option()
def embed_command(
    network: NetworkChoice,
    dataset: Path,
    out: Path,
    extraction: ExtractionConfig,
    *,
    as_json: bool,
) -> None:
    """Write the features of every patch of DATASET, by key, split and sensors."""
    from dinomm_train.data.index import StoredDataset
    from dinomm_train.evaluation.contestants import open_network
    from dinomm_train.evaluation.embeddings import write_embeddings

    stored = StoredDataset.open(dataset)
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
@click.option("--json", "as_json", is_flag=True, help="Print the file's metadata as JSON.")
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
@click.argument("dataset", type=DATASET)
@click.option("--key", required=True, help="Of the patch, as manifest.parquet lists it.")
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=path_ending(".png"),
    help="Picture to write.",
)
@extraction_options
@config_option()
def attention_command(
    network: NetworkChoice, dataset: Path, key: str, out: Path, extraction: ExtractionConfig
) -> None:
    """Draw what CHECKPOINT looks at in one patch: as both sensors, optical alone, radar alone.

    Above, the last block's attention from the CLS token, mean over heads; below, the first three
    principal components of its patch tokens as colours.
    """
    from bigearth_prep.whole_file import whole_file
    from dinomm_train.data.index import StoredDataset
    from dinomm_train.evaluation.contestants import open_network
    from dinomm_train.evaluation.pictures.attention import draw_attention, look_at_patch

    stored = StoredDataset.open(dataset)
    look = look_at_patch(open_network(network, stored), stored, key, extraction)
    with whole_file(out) as partial:
        draw_attention(look).savefig(partial, format="png", dpi=150)
    click.echo(str(out))
