"""The main job from Python: a sweep of CML trials under a teacher, and the best student's file.

    python examples/driver.py configs/ppocrv3_det_cml.yaml search_spaces/cml_loss_weights.yaml \
        teacher.weights=teacher.safetensors data.train=train_label.txt data.val=val_label.txt
"""

import sys
from pathlib import Path

from ocr_ray.config import load_config
from ocr_ray.errors import UserError
from ocr_ray.spaces import load_space
from ocr_ray.tune import sweep


def main(config: str, space: str, *overrides: str) -> None:
    """Searches the space and says what came out."""
    cfg = load_config(Path(config), overrides)
    result = sweep(cfg, load_space(Path(space), cfg))
    for trial in result.trials:
        print(trial.number, trial.values, trial.hmean, trial.end)
    print(f"best: hmean {result.hmean:.4f}  {result.best}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except UserError as e:
        sys.exit(f"driver: {e}")
