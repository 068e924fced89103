#!/bin/sh
# Three minutes of training on tiny Shakespeare's first 90 %, three seeds; nats per character on the last 10 %,
# read once with the state carried, and on random windows of 256 that begin anew, as transformers are often evaluated.
#     benchmarks/shakespeare.sh INPUT.TXT OUTPUT_FOLDER
set -eu
text=$1 out=$2
for seed in 1 2 3; do
    gatewise train lm "$text" --preset char-small --minutes 3 --fractions 0.9,0.1,0 --seed "$seed" \
        --out "$out/seed$seed"
    gatewise eval "$out/seed$seed" "$text" --fractions 0.9,0.1,0 --part valid --json > "$out/seed$seed.json"
    cat "$out/seed$seed.json"
    python "$(dirname "$0")/windows.py" "$out/seed$seed" "$text"
done
