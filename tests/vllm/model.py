"""The model of the package as a folder for vLLM. Runs in vLLM's own environment: python model.py GGUF FOLDER."""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

source, folder = Path(sys.argv[1]), sys.argv[2]
# GGUF has no word for it, but queries, keys and values have biases here.
model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, attention_bias=True)
model.hf_quantizer = None  # The weights are plain floats by now, but it would not let them be saved.
del model.config.quantization_config
model.save_pretrained(folder)
AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)
