"""Class names to CLIP tokens: templates, vocabularies and the tokenizer."""
