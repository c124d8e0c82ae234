"""Networks whose weights several processes share out, and gather for one layer at a time.

torch's `fully_shard` (FSDP2) keeps of each weight the rows of this rank. Before a block's attention
or perceptron, and again before its backward pass, all ranks gather its weights; afterwards they let
go of them, and sum its gradients so that each rank gets its rows.
"""

import warnings
from functools import partial
from types import MethodType

import torch
import torch.distributed as dist
from timm.layers.attention import Attention
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from dinomm_train.errors import TrainError
from dinomm_train.models.backbone import Backbone
from dinomm_train.models.student_teacher import Encoder, StudentTeacher
from dinomm_train.models.token_stream import (
    BlockSteps,
    Mix,
    Shapes,
    end_stream,
    mix_class_tokens,
    mix_tokens,
    stream_block,
)


def shard_networks(
    networks: StudentTeacher,
    device: torch.device,
    *,
    half_precision: bool,
    compile_layers: bool = False,
) -> None:
    """Leave this rank its part of both networks' weights, on this device.

    All ranks of the process group take part, and have the same weights before. In half precision
    the linear layers of blocks are gathered in bf16, to which autocast would round them anyway; all
    else, and the sums of gradients, stay in float32. Where layers are compiled, attention and
    perceptrons are by themselves, as weights are gathered between them, in all blocks but the last.

    Raises:
        TrainError: the backbone is not made of plain blocks.
    """
    if not networks.student.backbone.streams:
        raise TrainError(
            "compute.sharding 'fsdp' knows plain vision transformers that end in a class token "
            "alone; choose another model.name, or give --set compute.sharding=none"
        )
    # A linear layer's output is a view; nothing here changes it in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    assert dist.group.WORLD is not None
    mesh = DeviceMesh.from_group(dist.group.WORLD, device.type)
    for encoder in (networks.student, networks.teacher):
        if compile_layers:
            _compile_perceptrons(encoder.backbone)
        _mix_by_methods(encoder.backbone, compile_layers=compile_layers)
        _shard_encoder(encoder, mesh, half_precision=half_precision)
    networks.teacher.register_forward_hook(_forget_passes)


def _shard_encoder(encoder: Encoder, mesh: DeviceMesh, *, half_precision: bool) -> None:
    backbone = encoder.backbone
    for block in backbone.vit.blocks:
        for layers in (block.attn, block.mlp):
            assert isinstance(layers, nn.Module)
            _shard(layers, mesh, in_bf16=half_precision and _is_linear(layers))
    for rest in (backbone, encoder.head):
        _shard(rest, mesh, in_bf16=False)
    register_fsdp_forward_method(backbone, "forward_sizes")
    for attention in _attentions(backbone):
        for mix in (mix_tokens, mix_class_tokens):
            register_fsdp_forward_method(attention, mix.__name__)


def _is_linear(layers: nn.Module) -> bool:
    """Whether all weights are those of linear layers: autocast leaves norms in float32."""
    owners = [one for one in layers.modules() if any(True for _ in one.parameters(recurse=False))]
    return all(isinstance(owner, nn.Linear) for owner in owners)


def _shard(module: nn.Module, mesh: DeviceMesh, *, in_bf16: bool) -> None:
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if in_bf16 else None,
        reduce_dtype=torch.float32,
        # Autocast does, for each linear layer by itself, so that gradients add up in float32.
        cast_forward_inputs=False,
    )
    # The outermost modules let go of what they gathered too: else the teacher, which has no
    # backward pass, would go on with weights gathered steps ago.
    sharded = fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    if mesh.device_type == "cpu":
        sharded.set_force_sum_reduction_for_comms(enable=True)  # some gloo sums for a mean


def _mix_by_methods(backbone: Backbone, *, compile_layers: bool) -> None:
    """Have attention mix tokens in methods of its own, around which weights can be gathered."""
    through = torch.compile(mix_tokens, dynamic=False) if compile_layers else mix_tokens
    for attention in _attentions(backbone):
        setattr(attention, mix_tokens.__name__, MethodType(through, attention))
        setattr(attention, mix_class_tokens.__name__, MethodType(mix_class_tokens, attention))
    backbone.block_steps = BlockSteps(
        through=partial(stream_block, mix=_method(mix_tokens)),
        last=partial(end_stream, mix=_method(mix_class_tokens)),
    )


def _compile_perceptrons(backbone: Backbone) -> None:
    """Compile what perceptrons do between the hooks that gather their weights and let go of them.

    Not in the last block, which sees class tokens alone: so few are not worth shapes of their own.
    """
    for block in backbone.vit.blocks[:-1]:
        perceptron = block.mlp
        assert isinstance(perceptron, nn.Module)
        compiled = torch.compile(type(perceptron).forward, dynamic=False)
        perceptron.forward = MethodType(compiled, perceptron)


def _attentions(backbone: Backbone) -> list[Attention]:
    return [one for one in backbone.vit.blocks.modules() if isinstance(one, Attention)]


def _method(mix: Mix) -> Mix:
    def mix_gathered(attention: Attention, tokens: Tensor, shapes: Shapes) -> Tensor:
        mixed: Tensor = getattr(attention, mix.__name__)(tokens, shapes)
        return mixed

    return mix_gathered


def _forget_passes(teacher: nn.Module, _: object, __: object) -> None:
    # FSDP notes each pass for the backward pass to come, and the teacher has none. Older versions
    # have no way to let go of these notes, a few kilobytes a step.
    assert isinstance(teacher, Encoder)
    for root in (teacher.backbone, teacher.head):
        if (reset := getattr(root, "reset_iter_state", None)) is not None:
            reset()
