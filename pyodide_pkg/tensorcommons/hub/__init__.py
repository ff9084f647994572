"""What a model is made of, before it is a model: where files come from, safetensors, config, tokenizer."""
