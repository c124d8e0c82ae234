"""A small score of nearest neighbours while a run learns, shared out over the ranks."""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from dinomm_train.distributed import gather_rows
from dinomm_train.evaluation.protocols.knn import knn_votes
from dinomm_train.evaluation.scores import score_probabilities
from dinomm_train.health.look import MustStop, Row, teacher_features
from dinomm_train.health.patches import FixedPatches
from dinomm_train.learner import Learner


def score_neighbours(
    learner: Learner, bank: FixedPatches, queries: FixedPatches, must_stop: MustStop
) -> Row:
    """Micro and macro average precision per sensor state, as `knn/both/micro_ap`.

    Ranks embed a share each. None where all agreed to stop, and on all ranks but the first.
    """
    bank_features = _embed(learner, bank, must_stop)
    query_features = _embed(learner, queries, must_stop) if bank_features else {}
    if not query_features or not learner.ranks.is_first:
        return {}
    row: Row = {}
    bank_labels = torch.from_numpy(bank.labels).to(learner.ranks.device)
    names = tuple(map(str, range(bank.labels.shape[1])))
    for state in bank.states:
        votes = knn_votes(bank_features[state], bank_labels, query_features[state])
        scores = score_probabilities(queries.labels, votes.cpu().numpy().astype(np.float64), names)
        row[f"knn/{state}/micro_ap"] = scores.micro_ap
        row[f"knn/{state}/macro_ap"] = scores.macro_ap
    return row


def _embed(
    learner: Learner, patches: FixedPatches, must_stop: MustStop
) -> dict[str, Float32[Tensor, "patch feature"]]:
    """The teacher's features of all patches in order, on every rank; empty where all stop."""
    ranks = learner.ranks
    chunks: dict[str, list[Tensor]] = {state: [] for state in patches.states}
    with torch.no_grad():
        for shown in patches.share(ranks.rank, ranks.world).chunks(ranks.device):
            if must_stop():
                return {}
            for state, images in shown.items():
                chunks[state].append(teacher_features(learner, images))
        return {
            state: gather_rows(torch.cat(one), ranks)[: len(patches)]
            for state, one in chunks.items()
        }
