"""The WebNN device: whole graphs, lowered op by op to calls of the browser's MLGraphBuilder."""
