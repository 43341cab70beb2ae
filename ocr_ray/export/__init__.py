"""From a file of weights to the ONNX file that other programs read, and whether they find in it what it found here."""
