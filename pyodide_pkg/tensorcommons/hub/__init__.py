"""Files of models, before they are models: where files come from, safetensors, config, tokenizer."""
