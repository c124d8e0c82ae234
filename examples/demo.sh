#!/bin/sh
# The whole road on a made-up archive: shards, pretraining, scores.
# Usage: demo.sh [FOLDER [short|long]]; `long` learns until the checkpoint beats channel statistics.
set -eu

# Threads that wait for each other should not burn the cores that they share with others.
export OMP_WAIT_POLICY=passive

out=${1:-demo}
length=${2:-short}
config=$(dirname "$0")/../configs/pretrain-demo.toml
case $length in
    short)
        pairs=2000 epochs=16 precision=fp32
        scoring='--protocol linear'
        claims='linear:random,checkpoint'
        ;;
    long)
        pairs=4000 epochs=60
        # Faster on processors that multiply matrices of bf16, and slower on others.
        if grep -Eq "amx_bf16|avx512_bf16" /proc/cpuinfo; then precision=bf16; else precision=fp32; fi
        scoring='--protocol knn --protocol linear --supervised --finetune-epochs 40'
        # With radar alone, statistics are eight numbers: too few for a linear layer.
        claims='linear:random,statistics,checkpoint,supervised@s2,s1+s2'
        claims="$claims knn:random,statistics,checkpoint,supervised@s1"
        claims="$claims knn:random,statistics linear:statistics,checkpoint@s1"
        ;;
    *)
        echo "usage: demo.sh [FOLDER [short|long]]" >&2
        exit 2
        ;;
esac

say() { printf '\n== %s\n' "$1"; }

rm -rf "$out"
mkdir -p "$out"

say "1. A made-up archive in BigEarthNet's on-disk layout ($pairs pairs)"
bigearth-prep make-archive "$out/archive" --layout v2 --pairs "$pairs" --seed 0

say "2. Shards: paired, aligned to 10 m, normalized, labelled"
bigearth-prep build-shards \
    --s2 "$out/archive/BigEarthNet-S2" \
    --s1 "$out/archive/BigEarthNet-S1" \
    --metadata "$out/archive/metadata.parquet" \
    --metadata "$out/archive/metadata_for_patches_with_snow_cloud_or_shadow.parquet" \
    --normalize zscore --dtype float16 \
    --shard-mb 64 \
    --out "$out/dataset"
bigearth-prep verify "$out/dataset"
bigearth-prep inspect "$out/dataset" --preview "$out/patches.png" >"$out/card.txt"

say "3. Pretraining without labels: a small ViT, radar or optical blanked in half of the crops"
dinomm-train pretrain "$out/dataset" --out "$out/run" --config "$config" \
    --set "schedule.epochs=$epochs" --set "sampling.precision=$precision"

say "4. Frozen features on the test split, beside what they must beat"
# shellcheck disable=SC2086  # these are lists
dinomm-train evaluate "$out/run" "$out/dataset" $scoring --input-px 60 --out "$out/scores"

say "Written"
echo "report:   $out/scores/report.html"
echo "pictures: $out/patches.png $out/scores/scores.png $out/scores/attention.png"
echo "scores:   $out/scores/scores.md"
echo "curves:   tensorboard --logdir $out/run/tensorboard"

# shellcheck disable=SC2086
python "$(dirname "$0")/keeps_order.py" "$out/scores/scores.json" $claims
