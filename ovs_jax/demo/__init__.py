"""A page to try a model on: Gradio is in page.py, what it does in the other files."""
