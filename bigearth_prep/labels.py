"""Land-cover classes: the official 19 in their official order, and how the 43 reduce to them.

Source: BigEarthNet-19 nomenclature of TU Berlin (label_indices.json) over CORINE Land Cover 2018.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import UInt8

from bigearth_prep.errors import PrepError

NOMENCLATURE = "BigEarthNet-19"

_MERGED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Urban fabric", ("Continuous urban fabric", "Discontinuous urban fabric")),
    ("Industrial or commercial units", ("Industrial or commercial units",)),
    (
        "Arable land",
        ("Non-irrigated arable land", "Permanently irrigated land", "Rice fields"),
    ),
    (
        "Permanent crops",
        (
            "Vineyards",
            "Fruit trees and berry plantations",
            "Olive groves",
            "Annual crops associated with permanent crops",
        ),
    ),
    ("Pastures", ("Pastures",)),
    ("Complex cultivation patterns", ("Complex cultivation patterns",)),
    (
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
        ("Land principally occupied by agriculture, with significant areas of natural vegetation",),
    ),
    ("Agro-forestry areas", ("Agro-forestry areas",)),
    ("Broad-leaved forest", ("Broad-leaved forest",)),
    ("Coniferous forest", ("Coniferous forest",)),
    ("Mixed forest", ("Mixed forest",)),
    (
        "Natural grassland and sparsely vegetated areas",
        ("Natural grassland", "Sparsely vegetated areas"),
    ),
    (
        "Moors, heathland and sclerophyllous vegetation",
        ("Moors and heathland", "Sclerophyllous vegetation"),
    ),
    ("Transitional woodland, shrub", ("Transitional woodland, shrub",)),
    ("Beaches, dunes, sands", ("Beaches, dunes, sands",)),
    ("Inland wetlands", ("Inland marshes", "Peatbogs")),
    ("Coastal wetlands", ("Salt marshes", "Salines")),
    ("Inland waters", ("Water courses", "Water bodies")),
    ("Marine waters", ("Coastal lagoons", "Estuaries", "Sea and ocean")),
)

CLASSES: tuple[str, ...] = tuple(name for name, _ in _MERGED)
"""The 19 class names; a class index in any file of ours is a position in this tuple."""

DROPPED_LEVEL3: frozenset[str] = frozenset(
    {
        "Road and rail networks and associated land",
        "Port areas",
        "Airports",
        "Mineral extraction sites",
        "Dump sites",
        "Construction sites",
        "Green urban areas",
        "Sport and leisure facilities",
        "Bare rock",
        "Burnt areas",
        "Intertidal flats",
    }
)
"""The 11 of the 43 CORINE level-3 classes that the 19-class scheme leaves out."""

_CLASS_OF = {level3: name for name, merged in _MERGED for level3 in merged}
_CLASS_OF |= {name: name for name in CLASSES}
_INDEX_OF = {name: index for index, name in enumerate(CLASSES)}


def to_official_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Which of the 19 classes a list of 43-class or 19-class names stands for, in official order.

    A slash counts as ", " ("Transitional woodland/shrub" is v1's spelling). The result is empty
    where every name is one of the 11 dropped classes.

    Raises:
        PrepError: a name is in neither nomenclature.
    """
    found: set[str] = set()
    for raw in names:
        name = raw.replace("/", ", ")
        if name in DROPPED_LEVEL3:
            continue
        if name not in _CLASS_OF:
            raise PrepError(f"unknown land-cover class {raw!r}; expected a CORINE level-3 name")
        found.add(_CLASS_OF[name])
    return tuple(sorted(found, key=_INDEX_OF.__getitem__))


def multi_hot(
    names: Iterable[str], classes: Sequence[str] = CLASSES
) -> UInt8[np.ndarray, " class"]:
    """One byte per class: 1 where the class is among the names.

    Raises:
        KeyError: a name is not one of the classes.
    """
    index_of = {name: index for index, name in enumerate(classes)}
    row = np.zeros(len(classes), dtype=np.uint8)
    row[[index_of[name] for name in names]] = 1
    return row
