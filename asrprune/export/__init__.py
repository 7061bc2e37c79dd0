"""Take sub-networks out of trained models: as model files, as ONNX files, and in sherpa-onnx."""
