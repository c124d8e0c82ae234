"""`python -m dinomm_train`, the same as the command `dinomm-train`; for torchrun and srun."""

from dinomm_train.cli import main

main()
