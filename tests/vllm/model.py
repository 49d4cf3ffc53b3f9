"""The model of the package as a folder that vLLM reads. Runs in vLLM's own environment: python model.py GGUF FOLDER."""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

source, folder = Path(sys.argv[1]), sys.argv[2]
model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name)
model.hf_quantizer = None  # The weights are plain floats by now, but it would not let them be saved.
del model.config.quantization_config
model.save_pretrained(folder)
AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)
