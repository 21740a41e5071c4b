"""From a checkpoint and a picture to labels: loading, segmenting, naming, files."""
