#!/bin/sh
# train-in-pieces.sh DATA RECIPE FOLDER [MINUTES]: train in pieces of at most so many minutes (9 unless told).
#
# Each piece goes on from the checkpoint that the one before left in FOLDER, to the very result of one long run. Where a
# machine is lent for ten minutes at a time, run the command of the loop once on each, and carry FOLDER along:
#
#     models/train-in-pieces.sh cifar10_train.npy models/cifar10/recipe-gpu.toml trained/cifar10
set -u
while true; do
    bbans train "$1" --recipe "$2" -o "$3" --minutes "${4:-9}"
    status=$?
    [ "$status" -eq 3 ] || exit "$status" # 3: paused
done
