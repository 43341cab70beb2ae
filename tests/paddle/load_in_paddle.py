"""`python load_in_paddle.py FILE.pdparams EXPECTED.npz`, run by a Python that has PaddlePaddle and not this package.

Loads the file as PaddleOCR does, gives it to a net whose parameters have the expected names and shapes, and compares
each with its expected value bit for bit. Says how many it compared; exit 1 names the first that differs.
"""

import sys

import numpy as np
import paddle


def layer_for(arrays: dict[str, np.ndarray]) -> paddle.nn.Layer:
    """A net of nothing but parameters, one for each name, nested as the names are."""
    root = paddle.nn.Layer()
    for name, array in arrays.items():
        *parents, last = name.split(".")
        layer = root
        for parent in parents:
            if parent not in layer._sub_layers:
                layer.add_sublayer(parent, paddle.nn.Layer())
            layer = layer._sub_layers[parent]
        layer.add_parameter(last, layer.create_parameter(list(array.shape), dtype="float32"))
    return root


def main(file: str, expected_file: str) -> None:
    expected = dict(np.load(expected_file))
    loaded = paddle.load(file)
    for name, value in loaded.items():
        if not isinstance(value, paddle.Tensor):
            raise SystemExit(f"{name} is a {type(value).__name__}, expected a tensor of Paddle")
    net = layer_for(expected)
    missing, unexpected = net.set_state_dict(loaded)
    if missing or unexpected:
        raise SystemExit(f"missing {missing}, unexpected {unexpected}")
    for name, value in net.state_dict().items():
        found = value.numpy()
        if found.shape != expected[name].shape or found.tobytes() != expected[name].tobytes():
            raise SystemExit(f"{name} differs")
    print(f"paddle {paddle.__version__}: {len(expected)} arrays are equal")


if __name__ == "__main__":
    main(*sys.argv[1:])
