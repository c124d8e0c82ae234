#!/bin/sh
# The steps that the Dockerfile and the Apptainer definitions share. Usage: install.sh STEP
#
#   system               libraries of the system that wheels do not bring, a venv, mount points
#   dependencies EXTRA   what the packages need: EXTRA is `prep` or `train`
#   package WHEEL        the packages themselves
set -eu

here=$(dirname "$0")
venv=/opt/venv

case $1 in
system)
    apt-get update
    # expat: for GDAL in rasterio's wheel. The others: for NCCL over InfiniBand, which otherwise
    # falls back to TCP without a word.
    apt-get install -y --no-install-recommends \
        libexpat1 libibverbs1 ibverbs-providers librdmacm1
    rm -rf /var/lib/apt/lists/*
    python3 -m venv "$venv"
    # Old runtimes cannot make mount points on a read-only root.
    mkdir -p /data /scratch /workspace
    ;;
dependencies)
    "$venv/bin/python" "$here/requirements.py" "$here/../pyproject.toml" "$2" >"$venv/requirements"
    "$venv/bin/pip" install --no-cache-dir -r "$venv/requirements"
    ;;
package)
    "$venv/bin/pip" install --no-cache-dir --no-deps "$2"
    ;;
*)
    echo "unknown step: $1" >&2
    exit 2
    ;;
esac
