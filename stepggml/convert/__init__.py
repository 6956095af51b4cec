"""From a Hugging Face GPT-2 checkpoint (safetensors) to the two formats that stepggml runs: .bin and GGUF."""
