"""Flags as other programs call them, and what does the same here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnets.specs.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_Answers = dict[tuple[str, ...], str]

_TRAIN: _Answers = {
    ("b", "batch", "batch-size", "bs", "bsz", "train-batch-size", "per-device-train-batch-size"): (
        "it is --global-batch, images an optimiser step"
    ),
    ("lr", "learning-rate", "base-lr", "initial-lr"): "it is --optimizer.base-lr",
    ("momentum",): "it is --optimizer.momentum",
    ("wd", "weight-decay"): "it is --optimizer.weight-decay",
    ("nesterov",): "it is --optimizer.nesterov",
    ("opt",): "the optimiser is SGD; its fields begin with --optimizer.",
    ("epoch", "epochs", "num-epochs", "max-epochs", "num-train-epochs", "n-epochs"): (
        "the length is --steps; an epoch has (training images) / (--global-batch) of them"
    ),
    ("iterations", "iters", "max-iter", "max-iters", "max-steps", "num-steps"): "it is --steps",
    ("classes", "num-classes", "nb-classes", "n-classes"): "the number of classes is that of the data (--data)",
    ("j", "num-workers", "n-workers", "dataloader-num-workers", "data-workers"): "it is --workers",
    ("arch", "a", "net", "network", "depth"): "the net is part of the recipe's name, as in cifar10.resnet56",
    ("data-dir", "data-path", "dataset-path", "train-dir"): "it is --data",
    ("o", "out", "output", "output-dir", "save-dir", "log-dir", "logdir", "exp-dir"): "it is --run",
    ("img-size", "image-size", "input-size", "imgsz", "crop-size", "train-crop-size"): (
        "it is --dataset.image-px, with --dataset.resize-px"
    ),
    ("amp", "fp16", "bf16", "half", "mixed-precision", "dtype"): "it is --precision fp32, bf16 or fp16",
    ("gpu", "gpus", "cuda", "use-cuda"): "it is --device cuda, or cuda:N",
    ("random-seed", "manual-seed"): "it is --seed",
    ("pretrained", "weights", "finetune-from"): "it is --init-from, as in --init-from torchvision:resnet50",
    ("resume", "resume-from-checkpoint"): "the same command, with the same --run, goes on from the last checkpoint",
    ("grad-accum", "accum-iter", "gradient-accumulation-steps", "iter-size"): "it is --accumulation",
    ("scheduler", "lr-scheduler", "lr-scheduler-type", "sched"): "it is schedule:cosine, plateau or step-decay",
    ("milestones", "lr-milestones", "lr-steps", "decay-milestones"): "it is --schedule.milestones-steps",
    ("gamma", "lr-gamma", "lr-decay"): "it is --schedule.factor",
    ("warmup-steps", "warmup-epochs", "lr-warmup-steps", "lr-warmup-epochs"): (
        "it is warmup:linear-warmup --warmup.steps N"
    ),
    ("smoothing",): "it is --label-smoothing",
    ("mixup", "mixup-alpha"): "it is --mix.mixup-alpha",
    ("cutmix", "cutmix-alpha"): "it is --mix.cutmix-alpha",
    ("random-erase", "random-erasing", "reprob"): "it is --erase-probability",
    ("ema", "model-ema", "model-ema-decay"): "it is --ema-decay",
    ("sync-bn", "sync-batchnorm"): "it is --batch-norm.across-ranks sync",
    ("eval-every", "eval-steps", "eval-interval", "val-interval"): "it is --evaluate-every-steps",
    ("save-every", "save-steps", "save-interval", "checkpoint-interval"): "it is --checkpoint-every",
}

_BATCH = ("b", "batch", "batch-size", "bs", "bsz", "eval-batch-size", "val-batch-size", "per-device-eval-batch-size")
_WORKERS = ("j", "num-workers", "n-workers", "dataloader-num-workers", "data-workers")
_MODEL = ("m", "model", "model-path", "arch", "checkpoint", "ckpt", "ckpt-path", "resume", "pretrained", "load", "run")
_SIZE = ("img-size", "image-size", "input-size", "imgsz", "crop-size", "resize")
_PRECISION = ("amp", "fp16", "bf16", "half", "mixed-precision", "dtype")
_DEVICE = ("gpu", "gpus", "cuda", "use-cuda")
_CLASSES = ("num-classes", "nb-classes", "n-classes")
_OUTPUT = ("o", "out", "output", "output-dir", "results-file", "save-dir")

_EVALUATE: _Answers = {
    _BATCH: "the size of a batch is chosen here, and is no part of the result",
    _WORKERS: "it is --workers",
    _MODEL: "models are named first, without a flag",
    ("data-dir", "data-path", "dataset", "dataset-path", "val-dir", "test-dir"): "it is --data",
    _SIZE: "the size of images is stored with the model; --protocol dense sees them at several, --scales",
    _PRECISION: "it is --precision fp32, bf16 or fp16",
    _DEVICE: "it is --device cuda, or cuda:N",
    _CLASSES: "the number of classes is the model's",
    _OUTPUT: "--json prints the result as a document; --save-scores FILE.npz writes the probabilities",
    ("tta", "ten-crop", "tencrop", "augment"): "it is --protocol ten-crop",
    ("subset", "set"): "it is --split test, validation or train",
    ("k", "topk", "top-k"): "top-1 and top-5 error are both printed",
}
_PREDICT: _Answers = {
    _BATCH: "the size of a batch is chosen here, and is no part of the result",
    _WORKERS: "images are read by this process, and there is nothing to set",
    _MODEL: "the model is named first, without a flag",
    ("data", "data-dir", "data-path", "source", "input", "image", "images", "image-dir"): (
        "images and folders of them are named after the model, without a flag"
    ),
    _SIZE: "the size of images is stored with the model",
    _PRECISION: "predictions are made in fp32",
    _DEVICE: "it is --device cuda, or cuda:N",
    _CLASSES: "the number of classes is the model's",
    _OUTPUT: "--json prints the predictions as a document; --features OUT.npz writes features",
    ("k", "topk", "top"): "it is --top-k",
    ("layer", "feature-layer"): "it is --stage, with --features",
}


def _by_name(answers: _Answers) -> dict[str, str]:
    return {name: answer for names, answer in answers.items() for name in names}


TRAIN = _by_name(_TRAIN)
"""What `resnets train` says of each flag that other programs have."""
EVALUATE = _by_name(_EVALUATE)
"""What `resnets evaluate` says."""
PREDICT = _by_name(_PREDICT)
"""What `resnets predict` says."""


def refuse_usual_names(arguments: Sequence[str], answers: Mapping[str, str], hint: str) -> None:
    """Answer a flag that is called otherwise here than in other programs.

    Args:
        arguments: of the command line.
        answers: `TRAIN`, `EVALUATE` or `PREDICT`.
        hint: where all flags are listed.

    Raises:
        UserError: naming the field or flag that does the same.
    """
    for argument in arguments:
        if argument == "--":  # names of files follow
            return
        flag = argument.partition("=")[0]
        name = flag.lstrip("-").replace("_", "-").lower()
        if flag.startswith("-") and name in answers:
            raise UserError(f"There is no flag {flag} here: {answers[name].rstrip('.')}. {hint}")
