"""One self-contained HTML page that shows what a dataset holds."""

import base64
import html
import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Shaped
from matplotlib.figure import Figure

from bigearth_prep.card import REJECTED_NAME, DatasetCard, read_card
from bigearth_prep.dataset import open_dataset
from bigearth_prep.manifest import read_manifest
from bigearth_prep.pictures.contact_sheet import draw_contact_sheet
from bigearth_prep.pictures.page_figures import SPLIT_COLOURS, draw_histograms, draw_map
from bigearth_prep.pictures.tally import (
    Tally,
    tally_classes,
    tally_column,
    tally_months,
    tally_splits,
)
from bigearth_prep.whole_file import write_text

_OTHER_COLOUR = "#9aa0a6"


@dataclass(frozen=True, kw_only=True, slots=True)
class PageConfig:
    """How much of a dataset its page looks at."""

    histogram_samples: int = 256
    """Samples whose pixels are read for the histograms, at most."""

    sheet_patches: int = 8
    """Patches on the contact sheet."""

    seed: int = 0
    """Which samples the histograms take."""


def write_page(dataset: Path, out: Path, config: PageConfig) -> None:
    """Write the page; it needs no other file and no network to be seen.

    Raises:
        PrepError: the dataset is not finished, or a shard cannot be read.
    """
    card = read_card(dataset)
    sections = "\n".join(_sections(dataset, card, config))
    style = (files("bigearth_prep.pictures") / "page.css").read_text(encoding="utf-8")
    title = html.escape(f"{dataset.absolute().name}: {card.source['archive']}")
    metas = (
        '<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
    )
    head = f"{metas}\n<title>{title}</title>\n<style>\n{style}</style>"
    body = f"<h1>{title}</h1>\n{sections}"
    page = f'<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>'
    write_text(out, f"<!DOCTYPE html>\n{page}\n")


def _sections(dataset: Path, card: DatasetCard, config: PageConfig) -> Iterator[str]:
    manifest = read_manifest(dataset)
    rejected = pq.read_table(dataset / REJECTED_NAME)
    yield _summary(card, len(rejected))
    yield _legend(card)
    yield _tally_section("Splits", "Samples.", tally_splits(card))
    note = "Samples that bear the class; a sample may bear several."
    yield _tally_section("Classes", note, tally_classes(manifest, card.labels.classes))
    yield _tally_section("Countries", "Samples.", tally_column(manifest, "country"))
    note = "Samples by month of the optical acquisition (UTC)."
    yield _tally_section("Months", note, tally_months(manifest))
    yield _tally_section("Rejected", "Pairs left out.", tally_column(rejected, "reason"))
    yield _histogram_section(dataset, card, config)
    if manifest.column("epsg").null_count < len(manifest):
        side_m = card.patch.size_px * card.patch.resolution_m
        yield _figure_section("Places", "Centre of each patch.", draw_map(manifest, side_m))
    note = "Spread over the largest split; all are stretched alike, clouds may be white all over."
    sheet = draw_contact_sheet(dataset, patches=config.sheet_patches)
    yield _figure_section("Patches", note, sheet)


def _summary(card: DatasetCard, rejected: int) -> str:
    normalization, side = card.normalization, card.patch.size_px
    samples = sum(part.samples for part in card.splits.values())
    facts = {
        "samples": f"{samples:,} pairs of {side} x {side} px at {card.patch.resolution_m:g} m",
        "rejected": f"{rejected:,} pairs",
        **{
            name.upper(): f"{', '.join(layout.bands)} as {layout.dtype}, {layout.unit}"
            for name, layout in card.sensors.items()
        },
        "normalization": f"{normalization.scheme}: {normalization.order}",
        "parameters": normalization.source,
        "resampling": normalization.resampling,
        "made by": card.created_by,
    }
    rows = "\n".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in facts.items()
    )
    return f"<dl>\n{rows}\n</dl>"


def _legend(card: DatasetCard) -> str:
    marks = (f'<span class="mark">{_bar(split, 100.0)}</span> {split}' for split in card.splits)
    return f'<p class="legend">{" ".join(marks)}</p>'


def _tally_section(title: str, note: str, tally: Tally) -> str:
    """A table of names with a bar each, cut by split."""
    longest = max((sum(counts.values()) for counts in tally.values()), default=0)
    rows = "\n".join(_tally_row(name, counts, longest) for name, counts in tally.items())
    body = f"<table>\n{rows}\n</table>" if rows else "<p>None.</p>"
    return f"<section>\n<h2>{title}</h2>\n<p>{note}</p>\n{body}\n</section>"


def _tally_row(name: str, counts: dict[str, int], longest: int) -> str:
    order = [*SPLIT_COLOURS, *sorted(counts.keys() - SPLIT_COLOURS.keys())]
    parts = [(split, counts[split]) for split in order if split in counts]
    bars = "".join(_bar(split, 100 * count / longest) for split, count in parts)
    said = ", ".join(f"{count:,} {split}" for split, count in parts)
    total = sum(counts.values())
    return (
        f'<tr title="{html.escape(said)}"><th scope="row">{html.escape(name)}</th>'
        f'<td class="count">{total:,}</td><td class="bars">{bars}</td></tr>'
    )


def _bar(split: str, percent: float) -> str:
    colour = SPLIT_COLOURS.get(split, _OTHER_COLOUR)
    return f'<i style="width:{percent:.2f}%;background:{colour}"></i>'


def _figure_section(title: str, note: str, figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    picture = base64.b64encode(buffer.getvalue()).decode()
    return (
        f"<section>\n<h2>{title}</h2>\n<p>{html.escape(note)}</p>\n"
        f'<div class="wide"><img alt="{title}" src="data:image/png;base64,{picture}"></div>\n'
        "</section>"
    )


def _histogram_section(dataset: Path, card: DatasetCard, config: PageConfig) -> str:
    count, pixels = _sampled_pixels(dataset, card, config)
    units = ", ".join(f"{layout.unit} ({name.upper()})" for name, layout in card.sensors.items())
    total = sum(part.samples for part in card.splits.values())
    note = (
        f"All pixels of {count:,} of {total:,} samples, drawn with seed {config.seed}. Below each "
        f"panel the stored values, above it (brown) what they stand for: {units}."
    )
    return _figure_section("Values of each band", note, draw_histograms(card, pixels))


def _sampled_pixels(
    dataset: Path, card: DatasetCard, config: PageConfig
) -> tuple[int, dict[str, Shaped[np.ndarray, "sample height width"]]]:
    """How many samples were drawn from all splits together, and the stored values by band."""
    places = [
        (split, index) for split, part in card.splits.items() for index in range(part.samples)
    ]
    rng = np.random.default_rng(config.seed)
    count = min(config.histogram_samples, len(places))
    views = {split: open_dataset(dataset, split) for split in card.splits}
    chosen = [places[number] for number in sorted(rng.choice(len(places), count, replace=False))]
    items = [views[split][index] for split, index in chosen]
    return count, {
        band: np.stack([item[sensor][index] for item in items])
        for sensor, layout in card.sensors.items()
        for index, band in enumerate(layout.bands)
    }
