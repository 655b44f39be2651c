#!/usr/bin/env bash
# On a machine with a GPU and nvcc, without a network: builds klopf for that GPU, runs the tests on it, the benchmark, and
# compute-sanitizer on a short run; in ten minutes. Needs the Python packages of the build, the tests and the experiments
# (pybind11, scikit-build-core, cmake, ninja, numpy, pytest, hypothesis, safetensors, tqdm, threadpoolctl), and PyTorch for the comparison.
#
#   bench/gpu.sh [FOLDER of the results, default bench/results/gpu]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-bench/results/gpu}
total=580 sanitizer=110  # seconds
mkdir -p "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
echo "== build"
time python3 -m pip install -q --no-index --no-deps --no-build-isolation --target "$scratch/site" . -C build-dir="$scratch/build" \
  -C cmake.define.KLOPF_CUDA=ON -C cmake.define.KLOPF_CUDA_ARCHITECTURES=native -C cmake.define.KLOPF_BENCH=ON
export PYTHONPATH="$scratch/site:bench" PYTHONUNBUFFERED=1 PATH="$scratch/build/bench/micro:$PATH"
python3 -m klopf info

echo "== tests"
status=0
timeout 150 python3 -m pytest -q -p no:cacheprovider -k cuda tests/test_devices.py tests/test_device_arrays.py tests/test_gradients.py tests/test_losses.py tests/test_optimizers.py \
  tests/test_replacement.py tests/test_reference.py tests/test_invariance.py tests/test_trajectories.py tests/test_units.py tests/test_resume.py 2>&1 | tee "$out/tests.txt" || status=1

echo "== benchmark"
limit=$((total - SECONDS - sanitizer))
limit=$((limit > 60 ? limit : 60))
timeout $((limit + 30)) python3 bench/gpu.py --limit "$limit" --out "$out" || status=1

echo "== compute-sanitizer"
if command -v compute-sanitizer >/dev/null; then
  left=2  # tools
  : >"$out/sanitizer.txt"
  for tool in memcheck racecheck; do
    echo "$tool" | tee -a "$out/sanitizer.txt"
    timeout $(((total - SECONDS) / left--)) compute-sanitizer --tool "$tool" --error-exitcode 3 python3 -m pytest -q -p no:cacheprovider \
      tests/test_gradients.py -k "cuda and matches_reference and 7-1 and (Conv2d or Linear)" 2>&1 | tail -n 5 | tee -a "$out/sanitizer.txt" || status=1
  done
else
  echo "not found"
fi

exit "$status"
