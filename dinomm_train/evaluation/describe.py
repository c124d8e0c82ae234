"""What each protocol does, in words, for whoever reads the scores."""

from dinomm_train.evaluation.config import EvaluationConfig, Protocol
from dinomm_train.evaluation.encoders import CLS_LAYERS
from dinomm_train.evaluation.protocol_config import FinetuneConfig, LegacyConfig, LinearConfig
from dinomm_train.evaluation.protocols.knn import NEIGHBOURS, TEMPERATURE
from dinomm_train.evaluation.protocols.logistic_probe import L2_VALUES
from dinomm_train.evaluation.workbench import HELD_OUT_SHARE

_KNN = (
    f"{NEIGHBOURS} nearest labelled samples by cosine of the last CLS feature, each voting with "
    f"weight exp(cosine / {TEMPERATURE}); the share of votes is the score"
)


def describe_protocol(protocol: Protocol, config: EvaluationConfig, *, held_out: bool) -> str:
    """What the protocol does, in one line.

    Args:
        protocol: Which.
        config: Its settings.
        held_out: Whether a share of train stands in for the validation split.
    """
    chooser = f"{HELD_OUT_SHARE:.0%} of the labels, left out" if held_out else "validation"
    words = {
        "knn": lambda: _KNN,
        "linear": lambda: _linear(config.linear, chooser),
        "logistic": lambda: _logistic(chooser),
        "finetune": lambda: _finetune(config, chooser),
        "legacy": lambda: _legacy(config.legacy),
    }
    return words[protocol]()


def _linear(config: LinearConfig, chooser: str) -> str:
    return (
        f"one linear layer on standardized frozen features, SGD with momentum {config.momentum:g}, "
        f"batches of {config.batch_size}, {config.epochs} epochs, weight decay "
        f"{config.weight_decay:g}; learning rate ({_listed(config.learning_rates)}, cosine to 0) "
        f"and features (last or last {CLS_LAYERS} CLS, with or without the mean patch token) "
        f"chosen by micro AP on {chooser}"
    )


def _logistic(chooser: str) -> str:
    return (
        "logistic regression on the standardized last CLS feature, L2 of "
        f"{_listed(L2_VALUES)} per sample, chosen by micro AP on {chooser}"
    )


def _finetune(config: EvaluationConfig, chooser: str) -> str:
    def words(settings: FinetuneConfig) -> str:
        return (
            f"learning rate {_listed(settings.learning_rates)}, layer decay "
            f"{settings.layer_decay:g}, {settings.epochs} epochs"
        )

    one = config.finetune
    low, high = one.crop_scale
    return (
        f"the whole network learns, AdamW, batches of {one.batch_size}, weight decay "
        f"{one.weight_decay:g}, flips, quarter turns and crops of {low:g} to {high:g} of the area; "
        f"epoch and learning rate chosen by micro AP on {chooser}, scored once per as many "
        f"training patches as it has, and five times at least. Pretrained: {words(one)}; from "
        f"scratch: {words(config.scratch)}"
    )


def _legacy(config: LegacyConfig) -> str:
    return (
        f"as published: linear layer on the last {CLS_LAYERS} CLS, SGD {config.learning_rate:g}, "
        f"batches of {config.batch_size}, {config.epochs} epochs, random crops; best epoch's mean "
        f"of micro-APs of batches of {config.score_batch} on the validation list"
    )


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
